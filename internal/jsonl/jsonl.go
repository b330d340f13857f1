// Package jsonl writes what -j shows: one JSON object a line, with text as it is, so that < > & of flows and functions can be
// searched for.
package jsonl

import (
	"bytes"
	"encoding/json"
	"io"
)

// NewEncoder gives an encoder of lines.
func NewEncoder(w io.Writer) *json.Encoder {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e
}

// Write writes v as a line.
func Write(w io.Writer, v any) error { return NewEncoder(w).Encode(v) }

// Line gives v as a line, with its end.
func Line(v any) ([]byte, error) {
	var b bytes.Buffer
	err := Write(&b, v)
	return b.Bytes(), err
}
