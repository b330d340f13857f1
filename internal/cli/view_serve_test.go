package cli

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/internal/chromium"
	"github.com/fathom-trace/fathom/wire/pcapng"
)

// packetsFile is a capture of n datagrams of 10.0.0.1, one a ms, the i-th to the port 1000 + i.
func packetsFile(t *testing.T, n int) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "p.pcapng")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := pcapng.NewWriter(f, pcapng.Section{})
	if err != nil {
		t.Fatal(err)
	}
	in, err := w.Add(pcapng.Interface{Link: pcapng.LinkRaw, Name: "veth0"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		port := 1000 + i
		b := []byte{0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0x13, 0x88, byte(port >> 8), byte(port), 0, 12, 0, 0, 1, 2, 3, 4}
		if err := w.Write(pcapng.Packet{Interface: in, Time: 1_700_000_000_000_000_000 + int64(i)*1e6, Data: b, WireLen: 100 + i}); err != nil {
			t.Fatal(err)
		}
	}
	return name
}

// TestServe: the verb prints the page that its flags choose, answers there and nowhere else, in a browser where there is one, and
// ends when it is told to.
func TestServe(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	out, in := io.Pipe()
	c := viewCommand()
	c.SetArgs([]string{packetsFile(t, 600), "--serve", "127.0.0.1:0", "-q", "--from", "100ms"})
	c.SetOut(in)
	done := make(chan error, 1)
	go func() {
		err := c.ExecuteContext(ctx)
		in.CloseWithError(io.EOF)
		done <- err
	}()
	page, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err, <-done)
	}
	page = strings.TrimSpace(page)
	root, query, _ := strings.Cut(page, "?")
	if query != "from=100ms" {
		t.Errorf("the first page is %q", page)
	}
	get := func(url string) (int, string) {
		t.Helper()
		resp, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	for _, q := range []struct {
		url    string
		status int
		want   string
	}{
		{page, 200, "500 events, the last ones"},
		{page, 200, "10.0.0.2.1100: UDP"},
		{root, 200, `<p id="more">500 events. <a href="?from=499ms&amp;skip=1">`},
		{root + "?from=499ms&skip=1", 200, "100 events, the last ones"},
		{root + "?filter=len+%3C+103", 200, "3 events, the last ones"},
		{root + "?filter=len+%3C", 400, "a value is missing"},
		{root + "?e=nosuch", 400, "none of the recording"},
		{root + "?view=counts", 200, "600 events in 599ms"},
		{root + "x", 404, "no such page"},
		{root[:len(root)-2] + "/", 403, "without the token"},
	} {
		if status, body := get(q.url); status != q.status || !strings.Contains(body, q.want) {
			t.Errorf("%s: %d, and no %q in %.3000s", q.url, status, q.want, body)
		}
	}
	t.Run("browser", func(t *testing.T) {
		tab := chromium.Open(t, os.Getenv("FATHOM_SOAK") != "")
		tab.Go(root)
		tab.Type("input[name=filter]", "len == 350")
		tab.Enter()
		if text := tab.Text(); !strings.Contains(text, "10.0.0.2.1250: UDP") || !strings.Contains(text, "1 events, the last ones") || len(tab.Errors) > 0 {
			t.Errorf("%s\n%q", text, tab.Errors)
		}
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
