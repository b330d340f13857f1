package traceevent_test

import (
	"testing"

	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/tracefs"
)

// TestKernel parses every format of this machine.
func TestKernel(t *testing.T) {
	fs, err := tracefs.Find()
	if err != nil {
		t.Skip(err)
	}
	defer fs.Close()
	evs, err := fs.Events()
	if err != nil {
		t.Skip(err)
	}
	fields := 0
	for _, ev := range evs {
		b, err := fs.Format(ev.System, ev.Name)
		if err != nil {
			t.Errorf("%v", err) // may be a dynamic event that has just gone; there are none on test machines
			continue
		}
		f, err := traceevent.Parse(b)
		if err != nil || f.Name != ev.Name || f.ID == 0 || f.Print == "" {
			t.Errorf("%v: %v: %+v", ev, err, f)
			continue
		}
		fields += len(f.Fields)
		checkFields(t, ev.System+":"+ev.Name, f)
	}
	t.Logf("%d events, %d fields", len(evs), fields)
}

// checkFields knows that fields do not overlap, and that arrays have as many bytes as elements, or a multiple.
func checkFields(t *testing.T, name string, f *traceevent.Format) {
	end := 0
	for _, fd := range f.Fields {
		if fd.Offset < end {
			t.Errorf("%s.%s at %d overlaps the field before, which ends at %d", name, fd.Name, fd.Offset, end)
		}
		end = fd.Offset + fd.Size
		if fd.ArrayLen > 0 && fd.Size%fd.ArrayLen != 0 || (fd.DataLoc || fd.RelLoc) && (fd.Size != 4 || fd.ArrayLen != 0) {
			t.Errorf("%s: %+v", name, fd)
		}
	}
}
