package watch

import "unsafe"

// uintptrOf is for prctl(2), which takes a string as a number.
func uintptrOf(b *byte) uintptr { return uintptr(unsafe.Pointer(b)) }
