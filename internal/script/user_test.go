package script

import (
	"archive/zip"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/internal/oracle"
	"github.com/fathom-trace/fathom/lang/syntax"
)

// shop is a program to look into: functions with debug information, a USDT probe with operands of each kind, and one with a
// semaphore, which it reports.
const shop = `#include <stdio.h>
#include <unistd.h>
struct item { int price; char name[12]; struct item *next; };
unsigned short shop_open_semaphore __attribute__((section(".probes")));
#define NOTE(prov, name, sema, args, ...) __asm__ volatile ("990: nop\n" \
	".pushsection .note.stapsdt,\"?\",\"note\"\n.balign 4\n.4byte 992f-991f, 994f-993f, 3\n991: .asciz \"stapsdt\"\n992: .balign 4\n" \
	"993: .8byte 990b\n.8byte 0\n.8byte " sema "\n.asciz \"" #prov "\"\n.asciz \"" #name "\"\n.asciz \"" args "\"\n994: .balign 4\n.popsection\n" \
	:: __VA_ARGS__)
__attribute__((noinline)) int sell(struct item *it, char c, int n) {
	int sum = it->price * n + c;
	NOTE(shop, sold, "0", "-4@%0 8@%1 -4@$-7 4@%2", "r" (sum), "r" (it), "m" (it->price));
	return sum;
}
int main(void) {
	static struct item second = { 20, "pear", 0 }, first = { 10, "apple", &second };
	for (int i = 0; i < 50; i++) {
		sell(&first, 'x', 3);
		NOTE(shop, open, "shop_open_semaphore", "2@%0", "r" (shop_open_semaphore));
		usleep(20000);
	}
	return 0;
}
`

// buildShop compiles the program.
func buildShop(t *testing.T) (path string) {
	t.Helper()
	gcc := oracle.Path(t, "gcc")
	dir := t.TempDir()
	src := filepath.Join(dir, "shop.c")
	if err := os.WriteFile(src, []byte(shop), 0o644); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "shop")
	if out, err := exec.Command(gcc, "-g", "-O0", "-no-pie", "-o", path, src).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// TestUserProgram looks into a program by its debug information and its probes. It needs a compiler, which guests have not.
func TestUserProgram(t *testing.T) {
	if os.Geteuid() != 0 || os.Getenv("FATHOM_GUEST") != "" {
		t.Skip("needs root on a machine with a compiler")
	}
	path := buildShop(t)
	tests := []struct{ name, program, want string }{
		{"argument", `uprobe:SHOP:sell { printf("%c %d %s\n", args.c, args.n, args.it.name); exit(); }`, "x 3 apple\n"},
		{"pointer", `uprobe:SHOP:sell { print(args.it.next.price); exit(); }`, "20\n"},
		{"cast", `uprobe:SHOP:sell { print(((struct item *)arg0).price); exit(); }`, "10\n"},
		{"own struct first", `struct item { int cost; } uprobe:SHOP:sell { print(((struct item *)arg0).cost); exit(); }`, "10\n"},
		{"return", `uretprobe:SHOP:sell { print(retval); exit(); }`, "150\n"},
		{"line", `uprobe:SHOP@shop.c:LINE { @a = reg("ip"); } uprobe:SHOP:sell { @b = reg("ip"); } uretprobe:SHOP:sell { print(@a == @b); exit(); }`, "true\n"},
		{"usdt", `usdt:SHOP:shop:sold { printf("%d %s %d %d\n", arg0, ((struct item *)arg1).name, arg2, arg3); exit(); }`, "150 apple -7 10\n"},
		{"usdt wildcard", `usdt:SHOP:*:so* { print(probe); exit(); }`, "usdt:SHOP:shop:sold\n"},
		{"semaphore", `usdt:SHOP:open { print(arg0); exit(); }`, "1\n"},
		{"offset", `uprobe:SHOP:sell+4 { print(1); exit(); }`, "1\n"},
	}
	line := strings.Count(shop[:strings.Index(shop, "int sell(")], "\n") + 1
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out, errs syncBuffer
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			r := strings.NewReplacer("SHOP", path, "LINE", strconv.Itoa(line))
			_, err := Run(ctx, Options{
				Source: &syntax.Source{Name: "stdin", Text: r.Replace(tt.program)}, Stdout: &out, Stderr: &errs, Quiet: true,
				Command: []string{path}, Diags: func(ds []syntax.Diag) {
					for _, d := range ds {
						errs.Write([]byte(d.Error() + "\n"))
					}
				},
			})
			if got := out.String(); err != nil || !strings.HasPrefix(got, r.Replace(tt.want)) { // maps may follow
				t.Errorf("%v\n got %q\nwant %q\n%s", err, got, r.Replace(tt.want), errs.String())
			}
		})
	}
}

// TestArchive attaches to a program that is run from a ZIP archive's bytes.
func TestArchive(t *testing.T) {
	if os.Geteuid() != 0 || os.Getenv("FATHOM_GUEST") != "" {
		t.Skip("needs root on a machine with a compiler")
	}
	path := buildShop(t)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	archive := path + ".zip"
	f, err := os.Create(archive)
	if err != nil {
		t.Fatal(err)
	}
	z := zip.NewWriter(f)
	for _, method := range []uint16{zip.Store, zip.Deflate} {
		w, err := z.CreateHeader(&zip.FileHeader{Name: map[uint16]string{zip.Store: "lib/shop", zip.Deflate: "packed"}[method], Method: method})
		if err != nil {
			t.Fatal(err)
		}
		w.Write(b)
	}
	z.Close()
	f.Close()
	for member, want := range map[string]string{"lib/shop": "", "packed": "is compressed", "none": "No matches"} {
		var said strings.Builder
		_, err := Run(t.Context(), Options{
			Source: &syntax.Source{Name: "stdin", Text: `uprobe:"` + archive + `!/` + member + `":sell { } begin { exit(); }`},
			Stdout: &strings.Builder{}, Stderr: &strings.Builder{}, Quiet: true,
			Diags: func(ds []syntax.Diag) {
				for _, d := range ds {
					said.WriteString(d.Msg + "\n")
				}
			},
		})
		if (err == nil) != (want == "") || !strings.Contains(said.String(), want) {
			t.Errorf("%s: %v\n%s", member, err, said.String())
		}
	}
}

const brief = `#include <unistd.h>
__attribute__((noinline)) void inner(void) { syscall(SYS, 7); }
__attribute__((noinline)) void outer(void) { inner(); __asm__ volatile (""); }
int main(void) { outer(); return 0; }
`

// TestEnded names the frames of position-independent programs that ended before anybody looked, loaded somewhere else each
// time. The C library keeps no frame in syscall, so that inner is not in its stack.
func TestEnded(t *testing.T) {
	if os.Geteuid() != 0 || os.Getenv("FATHOM_GUEST") != "" {
		t.Skip("needs root on a machine with a compiler")
	}
	gcc := oracle.Path(t, "gcc")
	dir := t.TempDir()
	comm := fmt.Sprintf("brief%d", os.Getpid()) // others may run this test, too
	src, bin := filepath.Join(dir, "brief.c"), filepath.Join(dir, comm)
	text := "#include <sys/syscall.h>\n" + strings.Replace(brief, "SYS", "SYS_getpgid", 1)
	if err := os.WriteFile(src, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(gcc, "-O1", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-pie", "-fPIE", "-o", bin, src).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const runs = 40
	var out, errs syncBuffer
	interrupt := make(chan os.Signal, 1)
	done := make(chan error, 1)
	go func() {
		_, err := Run(t.Context(), Options{
			Source: &syntax.Source{Name: "stdin", Text: `tracepoint:syscalls:sys_enter_getpgid /comm == "` + comm + `"/ { printf("<%s>\n", ustack); }`},
			Stdout: &out, Stderr: &errs, Interrupt: interrupt, Notify: true,
		})
		done <- err
	}()
	if !await(&out, "PROBES_ATTACHED", 1) {
		t.Error("no probes are attached")
	}
	for range runs {
		if err := exec.Command(bin).Run(); err != nil {
			t.Fatal(err)
		}
	}
	interrupt <- os.Interrupt
	if err := <-done; err != nil {
		t.Fatal(err, errs.String())
	}
	stacks := strings.Split(out.String(), "<")[1:]
	named := 0
	for _, s := range stacks {
		if strings.Contains(s, "outer+") && strings.Contains(s, "main+") {
			named++
		}
	}
	if len(stacks) != runs || named != runs {
		t.Errorf("%d of %d stacks have their names; the last:\n%s", named, len(stacks), stacks[max(0, len(stacks)-1):])
	}
}
