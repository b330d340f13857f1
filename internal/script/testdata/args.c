// Functions whose arguments are where a list of registers does not say: behind a hidden address for the result, in pairs of
// registers, on the stack, and around those in vector registers.
struct pair { long a, b; };
struct small { int x; signed char tag[3]; };
struct big { long v[4]; };
struct mixed { double d; int i; };

#define KEEP __attribute__((noinline, noclone, used))
KEEP int many(int a, double f, signed char b, struct pair p, unsigned short c, struct pair q, struct big g, long last)
{
	return a + b + c + (int)f + (int)p.a + (int)q.b + (int)g.v[3] + (int)last;
}
KEEP struct big hidden(const char *s, int n)
{
	struct big g = {{s[0], n, 3, 4}};
	return g;
}
KEEP int floats(struct mixed m, int i, struct small s, __int128 wide)
{
	return m.i + i + s.x + s.tag[1] + (int)wide;
}
int main(void)
{
	struct pair p = {100, 200}, q = {300, 400};
	static char greeting[] = "hellO"; // programs read only memory that is there: it is written to
	*(volatile char *)&greeting[4] = 'o';
	struct big g = hidden(greeting, 42);
	struct mixed m = {1.5, 6};
	struct small s = {77, {1, -2, 3}};
	return many(1, 2.5, -3, p, 65535, q, g, -5) + floats(m, 9, s, 1) == 0;
}
