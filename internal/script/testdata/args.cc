// A class with a copy constructor is passed by its address, one without as C would.
struct counted {
	int n;
	counted(int n) : n(n) {}
	counted(const counted &o) : n(o.n + 1) {}
};
struct plain { int a, b; };
struct thing {
	int id;
	__attribute__((noinline, noclone, used)) int take(counted c, plain p, int &ref) const { return id + c.n + p.a + ref; }
};
int main()
{
	thing t{5};
	counted c(10);
	int v = 31;
	return t.take(c, plain{20, 21}, v) == 0;
}
