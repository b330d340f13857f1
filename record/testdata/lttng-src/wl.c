// Workloads with known counts: wl sys N (calls of getppid), wl udp N (datagrams to itself), wl exec N (programs executed).
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void udp(int n)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(to);
	char b[64] = { 0 };
	int from = socket(AF_INET, SOCK_DGRAM, 0), at = socket(AF_INET, SOCK_DGRAM, 0);

	bind(at, (void *)&to, len);
	getsockname(at, (void *)&to, &len);
	while (n--) {
		sendto(from, b, sizeof(b), 0, (void *)&to, len);
		recv(at, b, sizeof(b), 0);
	}
}

int main(int argc, char **argv)
{
	int n = argc > 2 ? atoi(argv[2]) : 0;

	if (n && !strcmp(argv[1], "udp"))
		udp(n);
	for (; n && !strcmp(argv[1], "sys"); n--)
		syscall(SYS_getppid);
	for (; n && !strcmp(argv[1], "exec"); n--) {
		if (!fork())
			_exit(execl("/proc/self/exe", "wl", (char *)0));
		wait(0);
	}
}
