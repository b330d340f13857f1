/* echo: sends back through its second memory what comes through its first, until that ends. */
#define _GNU_SOURCE
#include <stdio.h>

#include "fathom_shm.h"

int main(int argc, char **argv) {
	struct fathom_shm in, out;
	struct fathom_shm_reader r;
	struct fathom_shm_writer w;
	char msg[4096];
	if (argc != 3 || fathom_shm_open(&in, argv[1]) || fathom_shm_open(&out, argv[2]) || fathom_shm_reader(&in, &r) || fathom_shm_writer(&out, &w))
		return 1;
	puts("ready");
	fflush(stdout);
	for (unsigned long n = 1;; n++) {
		int len = fathom_shm_receive(&r, msg, sizeof msg);
		if (len >= 0) {
			while (fathom_shm_send(&w, msg, len) == -EAGAIN)
				;
			continue;
		}
		if (len != -EAGAIN)
			return 2;
		if (n % 4096 == 0 && fathom_shm_over(&r) && fathom_shm_receive(&r, msg, 0) == -EAGAIN)
			break;
	}
	fathom_shm_reader_close(&r);
	fathom_shm_writer_close(&w);
	fathom_shm_close(&in);
	fathom_shm_close(&out);
	return 0;
}
