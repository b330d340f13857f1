// A chain of calls without frame pointers, through a function of the C library and one whose frame has no fixed size.
#include <stdlib.h>
#include <unistd.h>

volatile int sink;

__attribute__((noinline)) void leaf(void) { sink++; }

__attribute__((noinline, noclone)) static int by(const void *a, const void *b)
{
	leaf();
	sink++;
	return *(const int *)a - *(const int *)b;
}

__attribute__((noinline)) void sorter(void)
{
	int a[2] = {2, 1};
	qsort(a, 2, sizeof *a, by);
	sink += a[0];
}

__attribute__((noinline)) void varying(int n)
{
	char b[n];
	__asm__ volatile("" ::"r"(b) : "memory");
	sorter();
	sink += b[n - 1];
}

int main(void)
{
	for (;;) {
		varying(10 + sink % 5);
		usleep(2000);
	}
}
