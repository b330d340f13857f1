package nic

import (
	"strings"
	"unicode/utf8"
)

// table is rows of cells, written in columns as wide as their widest cell.
type table struct {
	right map[int]bool // columns of numbers
	rows  [][]string
}

func newTable(right ...int) *table {
	t := &table{right: map[int]bool{}}
	for _, c := range right {
		t.right[c] = true
	}
	return t
}

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// write writes the rows, each behind an indent. A column in which nothing stands but its head is left out.
func (t *table) write(b *strings.Builder, indent string) {
	var wide []int
	used := map[int]bool{}
	for k, r := range t.rows {
		for i, c := range r {
			if i == len(wide) {
				wide = append(wide, 0)
			}
			wide[i] = max(wide[i], utf8.RuneCountInString(c))
			used[i] = used[i] || k > 0 && c != ""
		}
	}
	for _, r := range t.rows {
		var line strings.Builder
		for i, c := range r {
			if !used[i] {
				continue
			}
			pad := strings.Repeat(" ", wide[i]-utf8.RuneCountInString(c))
			if t.right[i] {
				line.WriteString(pad + c + "  ")
			} else {
				line.WriteString(c + pad + "  ")
			}
		}
		b.WriteString(strings.TrimRight(indent+line.String(), " ") + "\n")
	}
}
