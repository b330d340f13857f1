// Package chromium runs Debian's headless Chromium for tests of pages, by its DevTools protocol over a pipe
// (https://chromedevtools.github.io/devtools-protocol).
package chromium

import (
	"bufio"
	"encoding/json"
	"fmt"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fathom-trace/fathom/internal/oracle"
)

// programs are the names that Chromium goes by, the smallest first.
var programs = []string{"chromium-headless-shell", "chromium", "chromium-browser"}

// patience bounds every wait; nothing here takes as long, but on a machine with much else to do.
const patience = 2 * time.Minute

// Tab is a page of a browser. One goroutine may use it.
type Tab struct {
	t       testing.TB
	in      *os.File
	msgs    chan message
	session string
	id      int
	loaded  int // pages so far
	// Requests are the addresses that pages asked for over a network: neither files nor what stands in the page itself.
	Requests []string
	// Errors are what pages wrote to the console as errors, exceptions included, and what could not be loaded.
	Errors []string
}

type message struct {
	ID     int
	Method string
	Params json.RawMessage
	Result json.RawMessage
	Error  *struct{ Message string }
}

// Open starts a browser for a test, which ends it. Without Chromium the test is skipped; with need it fails where oracles are
// required.
func Open(t testing.TB, need bool) *Tab {
	t.Helper()
	path := ""
	for _, p := range programs {
		if found, err := exec.LookPath(p); err == nil {
			path = found
			break
		}
	}
	switch {
	case path == "" && need:
		oracle.Missing(t, "no "+strings.Join(programs, ", "))
	case path == "":
		t.Skip("no " + strings.Join(programs, ", "))
	}
	tab := &Tab{t: t, msgs: make(chan message, 1024)}
	tab.start(path)
	var target struct{ TargetID string }
	tab.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct{ SessionID string }
	tab.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	tab.session = attached.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		tab.call(domain+".enable", nil, nil)
	}
	return tab
}

// start runs the browser, with its pipe as descriptors 3 and 4.
func (b *Tab) start(path string) {
	b.t.Helper()
	theirs, in, err := os.Pipe()
	if err != nil {
		b.t.Fatal(err)
	}
	out, ours, err := os.Pipe()
	if err != nil {
		b.t.Fatal(err)
	}
	cmd := exec.Command(path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
		"--no-first-run", "--user-data-dir="+b.t.TempDir(), "--remote-debugging-pipe")
	cmd.ExtraFiles = []*os.File{theirs, ours}
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	theirs.Close()
	ours.Close()
	b.in = in
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(b.msgs)
		for r := bufio.NewReader(out); ; {
			line, err := r.ReadBytes(0)
			if err != nil {
				return
			}
			var m message
			if json.Unmarshal(line[:len(line)-1], &m) == nil {
				b.msgs <- m
			}
		}
	}()
	b.t.Cleanup(func() {
		in.Close() // the browser ends
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		go func() {
			for range b.msgs {
			}
		}()
		select {
		case <-ended:
		case <-time.After(patience):
			cmd.Process.Kill()
			<-ended
		}
		<-read
		out.Close()
	})
}

// call asks the browser to do something, and reads the answer into result, which may be nil.
func (b *Tab) call(method string, params any, result any) {
	b.t.Helper()
	b.id++
	want := b.id
	req := map[string]any{"id": want, "method": method}
	if params != nil {
		req["params"] = params
	}
	if b.session != "" {
		req["sessionId"] = b.session
	}
	text, err := json.Marshal(req)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.in.Write(append(text, 0)); err != nil {
		b.t.Fatalf("chromium: %s: %v", method, err)
	}
	b.wait(method, func(m message) bool {
		if m.ID != want {
			return false
		}
		if m.Error != nil {
			b.t.Fatalf("chromium: %s: %s", method, m.Error.Message)
		}
		if result != nil {
			if err := json.Unmarshal(m.Result, result); err != nil {
				b.t.Fatalf("chromium: %s: %v", method, err)
			}
		}
		return true
	})
}

// wait takes messages until one is the one.
func (b *Tab) wait(what string, is func(message) bool) {
	b.t.Helper()
	for deadline := time.After(patience); ; {
		select {
		case m, ok := <-b.msgs:
			if !ok {
				b.t.Fatalf("chromium ended while waiting for %s", what)
			}
			b.note(m)
			if is(m) {
				return
			}
		case <-deadline:
			b.t.Fatalf("chromium: nothing of %s for %v", what, patience)
		}
	}
}

// note takes in what happens by itself.
func (b *Tab) note(m message) {
	switch m.Method {
	case "Page.loadEventFired":
		b.loaded++
	case "Network.requestWillBeSent":
		var p struct{ Request struct{ URL string } }
		if json.Unmarshal(m.Params, &p) == nil && !strings.HasPrefix(p.Request.URL, "file:") && !strings.HasPrefix(p.Request.URL, "data:") {
			b.Requests = append(b.Requests, p.Request.URL)
		}
	case "Runtime.exceptionThrown":
		b.Errors = append(b.Errors, string(m.Params))
	case "Runtime.consoleAPICalled":
		var p struct{ Type string }
		if json.Unmarshal(m.Params, &p) == nil && p.Type == "error" {
			b.Errors = append(b.Errors, string(m.Params))
		}
	case "Log.entryAdded":
		var p struct {
			Entry struct{ Level, Text, URL string }
		}
		if json.Unmarshal(m.Params, &p) == nil && p.Entry.Level == "error" {
			b.Errors = append(b.Errors, fmt.Sprintf("%s %s", p.Entry.Text, p.Entry.URL))
		}
	}
}

// load does something that makes another page be shown, and waits until it is.
func (b *Tab) load(what string, do func()) {
	b.t.Helper()
	before := b.loaded
	do()
	if b.loaded == before {
		b.wait(what, func(message) bool { return b.loaded > before })
	}
}

// Go shows the page at an address.
func (b *Tab) Go(url string) {
	b.t.Helper()
	b.load(url, func() { b.call("Page.navigate", map[string]any{"url": url}, nil) })
}

// Eval gives the value of an expression in JavaScript, as text.
func (b *Tab) Eval(expression string) string {
	b.t.Helper()
	var r struct {
		Result           struct{ Value any }
		ExceptionDetails json.RawMessage
	}
	b.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true}, &r)
	if r.ExceptionDetails != nil {
		b.t.Fatalf("chromium: %s: %s", expression, r.ExceptionDetails)
	}
	return fmt.Sprint(r.Result.Value)
}

// Text is what a person reads on the page.
func (b *Tab) Text() string {
	b.t.Helper()
	return b.Eval("document.body.innerText")
}

// Type writes into the first element that a selector of CSS finds, as on a keyboard.
func (b *Tab) Type(selector, text string) {
	b.t.Helper()
	b.Eval(fmt.Sprintf("{ const e = document.querySelector(%q); e.focus(); e.select(); '' }", selector))
	b.call("Input.insertText", map[string]any{"text": text}, nil)
}

// Enter presses the key in what was typed into, and waits for the page that this brings.
func (b *Tab) Enter() {
	b.t.Helper()
	b.load("a page after Enter", func() {
		for _, kind := range []string{"keyDown", "keyUp"} {
			b.call("Input.dispatchKeyEvent", map[string]any{"type": kind, "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}, nil)
		}
	})
}

// Click follows the first link that a selector finds, and waits for its page.
func (b *Tab) Click(selector string) {
	b.t.Helper()
	b.load("a page after a click", func() {
		b.Eval(fmt.Sprintf("{ const e = document.querySelector(%q); e.dispatchEvent(new MouseEvent('click', {bubbles: true, cancelable: true})); '' }", selector))
	})
}

// Scheme has pages prefer light or dark colours.
func (b *Tab) Scheme(scheme string) {
	b.t.Helper()
	b.call("Emulation.setEmulatedMedia", map[string]any{"features": []any{map[string]string{"name": "prefers-color-scheme", "value": scheme}}}, nil)
}

// Screenshot writes what is seen into a file, in PNG.
func (b *Tab) Screenshot(name string) {
	b.t.Helper()
	var r struct{ Data []byte } // in base64
	b.call("Page.captureScreenshot", map[string]any{"format": "png"}, &r)
	if err := os.WriteFile(name, r.Data, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// envArtefacts is a folder for screenshots that somebody wants to see.
const envArtefacts = "FATHOM_ARTEFACTS"

// Alone opens a file that is to stand by itself, in light and in dark colours: it says what is wanted, complains of nothing, asks nobody for
// anything, and its ground is as bright as it should be. What is seen is kept in the folder that FATHOM_ARTEFACTS names.
func (b *Tab) Alone(name, file string, want ...string) {
	b.t.Helper()
	dir := os.Getenv(envArtefacts)
	if dir == "" {
		dir = b.t.TempDir()
	}
	bright := map[string]float64{}
	for _, scheme := range []string{"light", "dark"} {
		b.Errors, b.Requests = nil, nil
		b.Scheme(scheme)
		b.Go("file://" + file)
		text := b.Eval("document.documentElement.textContent")
		for _, w := range want {
			if !strings.Contains(text, w) {
				b.t.Errorf("%s: no %q in\n%.2000s", name, w, text)
			}
		}
		if len(b.Errors) > 0 || len(b.Requests) > 0 {
			b.t.Errorf("%s, %s: complaints %q, requests %q", name, scheme, b.Errors, b.Requests)
		}
		shot := filepath.Join(dir, name+"-"+scheme+".png")
		b.Screenshot(shot)
		bright[scheme] = b.corner(shot)
	}
	if bright["light"] < 0.8 || bright["dark"] > 0.3 {
		b.t.Errorf("%s: its ground has a brightness of %.2f in light colours, and of %.2f in dark ones", name, bright["light"], bright["dark"])
	}
}

// corner is how bright a picture's first point is, from 0 to 1.
func (b *Tab) corner(name string) float64 {
	b.t.Helper()
	f, err := os.Open(name)
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil {
		b.t.Fatal(err)
	}
	red, green, blue, _ := img.At(img.Bounds().Min.X+2, img.Bounds().Min.Y+2).RGBA()
	return float64(red+green+blue) / (3 * 0xffff)
}
