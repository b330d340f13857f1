// Command fathom asks a Linux kernel what it did.
package main

func main() {}
