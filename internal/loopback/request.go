package loopback

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
)

// Bounds of a request, in bytes and lines.
const (
	maxLine    = 8 << 10
	maxHead    = 32 << 10
	maxHeaders = 100
)

// request is what is taken from the head of an HTTP request.
type request struct {
	method string // GET or HEAD
	path   string // decoded; begins with a slash
	query  url.Values
	host   string // of the header Host
}

// requestError is a request that is not answered, with the status that says so.
type requestError struct {
	status int
	msg    string
}

func (e *requestError) Error() string { return e.msg }

func refuse(status int, format string, args ...any) error {
	return &requestError{status, fmt.Sprintf(format, args...)}
}

// readRequest reads the head of a request (RFC 9112, sections 2.2 to 5). A request with a body is refused. Errors that are no
// *requestError are those of the connection.
func readRequest(r io.Reader) (*request, error) {
	in := bufio.NewReaderSize(&io.LimitedReader{R: r, N: maxHead}, maxLine)
	line, err := readLine(in)
	if err != nil {
		return nil, err
	}
	q, err := parseLine(line)
	if err != nil {
		return nil, err
	}
	hosts := 0
	for n := 0; ; n++ {
		line, err := readLine(in)
		switch {
		case err != nil:
			return nil, err
		case len(line) == 0 && hosts != 1:
			return nil, refuse(400, "%d headers Host", hosts)
		case len(line) == 0:
			return q, nil
		case n == maxHeaders:
			return nil, refuse(431, "more than %d headers", maxHeaders)
		}
		name, value, ok := strings.Cut(string(line), ":")
		if !ok || name == "" || strings.ContainsAny(name, " \t") {
			return nil, refuse(400, "a header without a name")
		}
		value = strings.Trim(value, " \t")
		switch strings.ToLower(name) {
		case "host":
			hosts++
			q.host = value
		case "content-length":
			if strings.Trim(value, "0") != "" {
				return nil, refuse(413, "a request with a body")
			}
		case "transfer-encoding":
			return nil, refuse(413, "a request with a body")
		}
	}
}

// readLine gives a line without its end.
func readLine(in *bufio.Reader) ([]byte, error) {
	line, err := in.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, refuse(431, "a line of more than %d bytes", maxLine)
	case errors.Is(err, io.EOF) && len(line) > 0:
		return nil, refuse(431, "a head that is cut off, or of more than %d bytes", maxHead)
	case err != nil:
		return nil, err
	}
	line = bytes.TrimSuffix(line[:len(line)-1], []byte("\r"))
	for _, c := range line {
		if c < ' ' && c != '\t' || c == 0x7f {
			return nil, refuse(400, "a control character in the head")
		}
	}
	return line, nil
}

// parseLine takes "GET /path?query HTTP/1.1" apart.
func parseLine(line []byte) (*request, error) {
	method, rest, _ := strings.Cut(string(line), " ")
	target, version, ok := strings.Cut(rest, " ")
	switch {
	case !ok || !strings.HasPrefix(version, "HTTP/1.") || len(version) != len("HTTP/1.1"):
		return nil, refuse(400, "no request of HTTP/1.1")
	case method != "GET" && method != "HEAD":
		return nil, refuse(405, "the method %s", method)
	case !strings.HasPrefix(target, "/"):
		return nil, refuse(400, "a target that is no path")
	}
	path, query, _ := strings.Cut(target, "?")
	p, err := url.PathUnescape(path)
	if err != nil {
		return nil, refuse(400, "%v", err)
	}
	q, err := url.ParseQuery(query)
	if err != nil {
		return nil, refuse(400, "%v", err)
	}
	return &request{method: method, path: p, query: q}, nil
}
