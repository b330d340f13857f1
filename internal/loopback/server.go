// Package loopback answers a browser on this machine: HTTP/1.1 (RFC 9112), GET and HEAD, one answer for a connection, nothing
// else. It listens on the loopback only. Who asks must know the token in the path, which is new each time, and must name this
// machine in the header Host, so that neither other users nor pages from elsewhere, DNS that is rebound included, can ask.
//
// It exists because net/http would be a seventh of the binary.
package loopback

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Response is an answer, whole.
type Response struct {
	Status int    // 200 if 0
	Type   string // of the content; HTML if ""
	Body   []byte
	// Scripts are the hashes, "sha256-…", of scripts that the page may run. All others, and everything from elsewhere, are
	// forbidden to it.
	Scripts []string
}

// Handler answers a request for a path below the token, with a slash before it. The context ends when who asked is gone. It is called
// by several goroutines.
type Handler func(ctx context.Context, path string, query url.Values) Response

// Times after which a connection is given up.
const (
	headTime  = 20 * time.Second // to send a request
	bodyTime  = 60 * time.Second // to take an answer
	closeTime = 2 * time.Second  // to close
)

// Bounds of what happens at once.
const (
	maxConns = 64
	maxRuns  = 2
)

// Server listens.
type Server struct {
	ln    net.Listener
	token string
	hosts []string
	conns chan struct{} // has an element for each connection
	runs  chan struct{} // has an element for each call of the handler
}

// Listen listens at an address "HOST:PORT" of the loopback; port 0 is any that is free.
func Listen(addr string) (*Server, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if ip := net.ParseIP(host); host != "localhost" && !ip.IsLoopback() {
		return nil, fmt.Errorf("%q is no address of the loopback, such as 127.0.0.1:0", addr)
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	at := ln.Addr().(*net.TCPAddr)
	if !at.IP.IsLoopback() { // what localhost is, is for the resolver to say
		return nil, errors.Join(fmt.Errorf("%q is not the loopback here, but %v", addr, at.IP), ln.Close())
	}
	var token [16]byte
	rand.Read(token[:])
	port := strconv.Itoa(at.Port)
	return &Server{ln: ln, token: hex.EncodeToString(token[:]), conns: make(chan struct{}, maxConns), runs: make(chan struct{}, maxRuns),
		hosts: []string{at.String(), "localhost:" + port}}, nil
}

// URL is where the handler's path "/" is.
func (s *Server) URL() string { return "http://" + s.hosts[0] + "/" + s.token + "/" }

// Serve answers until the context ends, which is no error. It closes the listener, and returns when nothing runs any more.
func (s *Server) Serve(ctx context.Context, h Handler) error {
	var all sync.WaitGroup
	defer all.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { s.ln.Close() })()
	for {
		c, err := s.ln.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				c.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // of one connection, or of too many files: the next may do
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		select {
		case s.conns <- struct{}{}:
			all.Go(func() {
				s.answer(ctx, c.(*net.TCPConn), h)
				<-s.conns
			})
		default: // a browser asks again
			c.Close()
		}
	}
}

// answer answers one request.
func (s *Server) answer(ctx context.Context, c *net.TCPConn, h Handler) {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.SetReadDeadline(time.Now().Add(headTime))
	q, err := readRequest(c)
	var bad *requestError
	switch {
	case errors.As(err, &bad):
		s.write(c, "GET", plain(bad.status, bad.msg))
	case err != nil:
		return
	default:
		gone := make(chan struct{})
		c.SetReadDeadline(time.Time{})
		go func() { // there is nothing to read but the end
			defer close(gone)
			io.Copy(io.Discard, io.LimitReader(c, maxHead))
			cancel()
		}()
		s.write(c, q.method, s.respond(ctx, q, h))
		c.CloseWrite()
		c.SetReadDeadline(time.Now().Add(closeTime))
		<-gone
		return
	}
	// What was not read would make the system reset the connection, with the answer still on its way.
	c.CloseWrite()
	c.SetReadDeadline(time.Now().Add(closeTime))
	io.Copy(io.Discard, io.LimitReader(c, 16*maxHead))
}

// respond asks the handler what may be asked of it.
func (s *Server) respond(ctx context.Context, q *request, h Handler) Response {
	known := false
	for _, n := range s.hosts {
		known = known || strings.EqualFold(q.host, n)
	}
	token, path, ok := strings.Cut(q.path[1:], "/")
	switch {
	case !known:
		return plain(403, "this is "+s.hosts[0]+", and not "+q.host)
	case subtle.ConstantTimeCompare([]byte(token), []byte(s.token)) != 1:
		return plain(403, "without the token that fathom printed")
	case !ok:
		return plain(404, "a path ends its token by a slash")
	}
	select {
	case s.runs <- struct{}{}:
		defer func() { <-s.runs }()
	case <-ctx.Done():
		return plain(503, "it ends")
	}
	return h(ctx, "/"+path, q.query)
}

func plain(status int, text string) Response {
	return Response{Status: status, Type: "text/plain; charset=utf-8", Body: []byte("fathom: " + text + "\n")}
}

// reasons are the words for statuses that are used.
var reasons = map[int]string{200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
	413: "Content Too Large", 431: "Request Header Fields Too Large", 500: "Internal Server Error", 503: "Service Unavailable"}

// write sends an answer.
func (s *Server) write(c net.Conn, method string, r Response) {
	if r.Status == 0 {
		r.Status = 200
	}
	if r.Type == "" {
		r.Type = "text/html; charset=utf-8"
	}
	scripts := "'none'"
	if len(r.Scripts) > 0 {
		scripts = "'" + strings.Join(r.Scripts, "' '") + "'"
	}
	head := fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\nCache-Control: no-store\r\n"+
		"Referrer-Policy: no-referrer\r\nX-Content-Type-Options: nosniff\r\nCross-Origin-Resource-Policy: same-origin\r\n"+
		"Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src %s; form-action 'self'; base-uri 'none'; frame-ancestors 'none'\r\n",
		r.Status, reasons[r.Status], r.Type, len(r.Body), scripts)
	if r.Status == 405 {
		head += "Allow: GET, HEAD\r\n"
	}
	out := net.Buffers{[]byte(head + "\r\n")}
	if method != "HEAD" {
		out = append(out, r.Body)
	}
	c.SetWriteDeadline(time.Now().Add(bodyTime))
	out.WriteTo(c)
}
