package elf_test

import (
	"fmt"
	"os"

	"github.com/fathom-trace/fathom/debuginfo/elf"
)

func ExampleTable_Find() {
	r, err := os.Open("/bin/sh")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer r.Close()
	f, err := elf.Read(r)
	if err != nil {
		fmt.Println(err)
		return
	}
	syms, err := f.Symbols()
	s, ok := elf.NewTable(syms).Find(0x10c0)
	fmt.Println(s.Name, ok, err)
}
