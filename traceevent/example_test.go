package traceevent_test

import (
	"fmt"

	"github.com/fathom-trace/fathom/traceevent"
)

func ExampleParse() {
	f, err := traceevent.Parse([]byte(`name: sys_enter_open
ID: 614
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;

	field:int __syscall_nr;	offset:8;	size:4;	signed:1;
	field:const char * filename;	offset:16;	size:8;	signed:0;

print fmt: "filename: 0x%08lx", ((unsigned long)(REC->filename))
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, fd := range f.Fields {
		if !fd.Common {
			fmt.Printf("%s: %s at %d\n", fd.Name, fd.Type, fd.Offset)
		}
	}
	// Output:
	// __syscall_nr: int at 8
	// filename: const char * at 16
}
