// Package sorting sorts by a comparison, as package slices does, with the one routine of package sort for all types. Of those
// of package slices the compiler makes a copy for each type: fifty of them were 600 KB of the binary. Where many thousand
// elements are sorted, the copies are worth it.
package sorting

import "sort"

// By sorts s so that compare is not positive for neighbours. Elements that are equal may change places.
func By[T any](s []T, compare func(a, b T) int) {
	sort.Slice(s, func(i, j int) bool { return compare(s[i], s[j]) < 0 })
}

// Stable is [By], and leaves elements that are equal in the order they were in.
func Stable[T any](s []T, compare func(a, b T) int) {
	sort.SliceStable(s, func(i, j int) bool { return compare(s[i], s[j]) < 0 })
}
