// Package ctf reads and writes traces in the Common Trace Format 1.8: a folder with a text, metadata, that describes in a
// language (TSDL) how the bits of the other files, the streams, are laid out.
//
// What is written is plain: every field is aligned to bytes, little endian, in the order and under the names that the
// kernel's formats have, one stream for each CPU, with an index as LTTng writes it. It opens in babeltrace2 and, as it says
// of itself to come from perf, in Trace Compass's views of the kernel. What is read is the format as LTTng and we write it:
// packed bits, both byte orders, compact and large headers, variants, sequences and strings. Events are given as records of
// the kernel would be, under a [traceevent.Format] that is made from the metadata.
//
// Traces of CTF 2, whose metadata is JSON, are read as well: all classes of fields, but numbers of more than 64 bits, which are
// refused, and floats of other than 16, 32, 64 and 128 bits. Arrays of what is no integer are text in the record, in both versions.
//
// The authorities are the specifications of CTF 1.8.3 and of CTF 2 (diamon.org/ctf), and babeltrace2 where they are silent.
package ctf
