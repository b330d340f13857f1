package kallsyms_test

import (
	"fmt"

	"github.com/fathom-trace/fathom/debuginfo/kallsyms"
)

func ExampleTable_ByAddr() {
	t, err := kallsyms.Parse([]byte("ffffffff81000000 T _text\nffffffff81000040 t vfs_read\nffffffffc0001000 t e1000_open\t[e1000]\n"))
	if err != nil {
		fmt.Println(err)
		return
	}
	name, module, off, ok := t.ByAddr(0xffffffffc0001010)
	fmt.Println(name, module, off, ok)
	// Output: e1000_open e1000 16 true
}
