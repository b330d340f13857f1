// Package docs holds the documents that the binary prints.
package docs

import _ "embed" // the documents

// Language is the language by example, in Markdown.
//
//go:embed language.md
var Language string

// Cookbook is command lines by question, in Markdown.
//
//go:embed cookbook.md
var Cookbook string

// Graph is about call graphs, in Markdown.
//
//go:embed graph.md
var Graph string

// NIC is about network devices and the receive path, in Markdown.
//
//go:embed nic.md
var NIC string

// Packet is about following packets, in Markdown.
//
//go:embed packet.md
var Packet string

// Watch is about who changed what, in Markdown.
//
//go:embed watch.md
var Watch string

// Rank is about counting events, in Markdown.
//
//go:embed rank.md
var Rank string

// Record is about recordings, in Markdown.
//
//go:embed record.md
var Record string

// Bypass is about going around the kernel, in Markdown.
//
//go:embed bypass.md
var Bypass string

// Hosts is about other machines, in Markdown.
//
//go:embed hosts.md
var Hosts string
