package loopback

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// serve answers at an address of its own until the test ends.
func serve(t *testing.T, h Handler) *Server {
	t.Helper()
	s, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, h) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// raw sends bytes and gives the answer.
func raw(t *testing.T, s *Server, text string) string {
	t.Helper()
	c, err := net.Dial("tcp", s.hosts[0])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("%q: %v", text[:min(len(text), 100)], err)
	}
	return string(b)
}

func echo(_ context.Context, path string, q url.Values) Response {
	return Response{Type: "text/plain", Body: []byte(path + " " + q.Encode())}
}

// TestRefused: what has no token, names another machine, or is no request is refused, each with its status.
func TestRefused(t *testing.T) {
	s := serve(t, echo)
	host, path := s.hosts[0], "/"+s.token+"/"
	ask := func(line string, headers ...string) string {
		return line + "\r\n" + strings.Join(append(headers, "", ""), "\r\n")
	}
	for _, c := range []struct{ name, in, want string }{
		{"right", ask("GET "+path+"?a=b+c HTTP/1.1", "Host: "+host), "200 OK"},
		{"localhost", ask("GET "+path+" HTTP/1.1", "Host: LOCALHOST:"+host[strings.LastIndex(host, ":")+1:]), "200 OK"},
		{"bare newlines", "GET " + path + " HTTP/1.0\nHost: " + host + "\n\n", "200 OK"},
		{"no token", ask("GET / HTTP/1.1", "Host: "+host), "403 Forbidden"},
		{"another token", ask("GET /"+strings.Repeat("0", 32)+"/ HTTP/1.1", "Host: "+host), "403 Forbidden"},
		{"a part of the token", ask("GET "+path[:9]+"/ HTTP/1.1", "Host: "+host), "403 Forbidden"},
		{"rebound DNS", ask("GET "+path+" HTTP/1.1", "Host: evil.example"), "403 Forbidden"},
		{"another port", ask("GET "+path+" HTTP/1.1", "Host: localhost:1"), "403 Forbidden"},
		{"no slash", ask("GET "+strings.TrimSuffix(path, "/")+" HTTP/1.1", "Host: "+host), "404 Not Found"},
		{"no host", ask("GET " + path + " HTTP/1.1"), "400 Bad Request"},
		{"two hosts", ask("GET "+path+" HTTP/1.1", "Host: "+host, "Host: x"), "400 Bad Request"},
		{"method", ask("POST "+path+" HTTP/1.1", "Host: "+host), "405 Method Not Allowed"},
		{"body", ask("GET "+path+" HTTP/1.1", "Host: "+host, "Content-Length: 5"), "413 Content Too Large"},
		{"chunks", ask("GET "+path+" HTTP/1.1", "Host: "+host, "Transfer-Encoding: chunked"), "413 Content Too Large"},
		{"absolute target", ask("GET http://"+host+path+" HTTP/1.1", "Host: "+host), "400 Bad Request"},
		{"bad escape", ask("GET "+path+"%zz HTTP/1.1", "Host: "+host), "400 Bad Request"},
		{"control character", ask("GET "+path+" HTTP/1.1", "Host: "+host, "X: a\x01"), "400 Bad Request"},
		{"HTTP/2", ask("PRI * HTTP/2.0", ""), "400 Bad Request"},
		{"long line", ask("GET "+path+strings.Repeat("a", maxLine)+" HTTP/1.1", "Host: "+host), "431 Request Header"},
		{"many headers", ask("GET "+path+" HTTP/1.1", strings.Repeat("A: b\r\n", maxHeaders+1)+"Host: "+host), "431 Request Header"},
		{"large head", ask("GET "+path+" HTTP/1.1", strings.Repeat("A: "+strings.Repeat("b", 1000)+"\r\n", 40)+"Host: "+host), "431 Request Header"},
	} {
		if got := raw(t, s, c.in); !strings.HasPrefix(got, "HTTP/1.1 "+c.want) {
			t.Errorf("%s: %.200q", c.name, got)
		}
	}
}

// TestAnswer: an independent client understands answers, and a page may do nothing but what it must.
func TestAnswer(t *testing.T) {
	s := serve(t, echo)
	resp, err := http.Get(s.URL() + "x?b=%C3%BC&a=1")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff("/x a=1&b=%C3%BC", string(body)); d != "" {
		t.Error(d)
	}
	if csp := resp.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "script-src 'none'") {
		t.Error(csp)
	}
	head, err := http.Head(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	if head.Body.Close(); head.ContentLength != 2 {
		t.Errorf("HEAD tells of %d bytes", head.ContentLength)
	}
}

// TestGone: who does not wait for the answer ends what makes it.
func TestGone(t *testing.T) {
	began, ended := make(chan bool), make(chan error)
	s := serve(t, func(ctx context.Context, _ string, _ url.Values) Response {
		began <- true
		<-ctx.Done()
		ended <- ctx.Err()
		return Response{}
	})
	c, err := net.Dial("tcp", s.hosts[0])
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "GET /%s/ HTTP/1.1\r\nHost: %s\r\n\r\n", s.token, s.hosts[0])
	<-began
	c.Close()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestEnd: a client that says nothing does not keep the server from ending.
func TestEnd(t *testing.T) {
	s := serve(t, echo)
	c, err := net.Dial("tcp", s.hosts[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	raw(t, s, "GET / HTTP/1.1\r\nHost: x\r\n\r\n") // c was accepted before this
}

func TestListen(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "example.com:80", "127.0.0.1"} {
		if s, err := Listen(addr); err == nil {
			s.ln.Close()
			t.Errorf("%s: it listens", addr)
		}
	}
}

// FuzzRequest: what is accepted means the same when it is written plainly.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HEAD /a%20b?c=d&e HTTP/1.0\nhost:\tb \n\n", "GET /?%zz HTTP/1.1\r\n\r\n", "POST / HTTP/1.1\r\n",
		"GET /x HTTP/1.1\r\nHost: a\r\nContent-Length: 00\r\n\r\n", "GET /\x00 HTTP/1.1\r\n", "GET //a/../b HTTP/1.1\r\nHost: a:1\r\nX: y: z\r\n\r\nrest"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := readRequest(bytes.NewReader(b))
		if err != nil {
			return
		}
		if q.method != "GET" && q.method != "HEAD" || !strings.HasPrefix(q.path, "/") {
			t.Fatalf("%+v", q)
		}
		// Written plainly, it means the same.
		again := fmt.Sprintf("%s %s?%s HTTP/1.1\r\nHost: %s\r\n\r\n", q.method, (&url.URL{Path: q.path}).EscapedPath(), q.query.Encode(), q.host)
		q2, err := readRequest(strings.NewReader(again))
		if len(again) > maxLine {
			return
		}
		if err != nil {
			t.Fatalf("%q: %v", again, err)
		}
		if d := cmp.Diff(fmt.Sprint(*q), fmt.Sprint(*q2)); d != "" {
			t.Fatal(d)
		}
	})
}

// TestSlow: a request that is not finished does not keep the server from ending.
func TestSlow(t *testing.T) {
	s, err := Listen("[::1]:0")
	if errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT) { // no IPv6 here
		s, err = Listen("127.0.0.1:0")
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, echo) }()
	c, err := net.Dial("tcp", s.hosts[0])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET / HT")
	cancel()
	select {
	case err = <-done:
	case <-time.After(2 * time.Minute):
		t.Fatal("it does not end")
	}
	if err != nil {
		t.Error(err)
	}
}
