package walk

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/kernel"
)

// Disk is a block device that is no partition.
type Disk struct {
	Addr     uint64 // of its struct gendisk
	Queue    uint64
	Name     string
	Major    int
	Minor    int
	Requests []Request // that the driver has, by age
	Waiting  []Request // that were to be given to it again
}

// Request is a request to a disk.
type Request struct {
	Addr   uint64
	Tag    int
	Op     string // in the words of enum req_op: "read", "write", "flush" …
	Write  bool   // /sys/block/DISK/inflight counts it so
	Sector uint64 // of 512 bytes
	Bytes  uint64
	Age    time.Duration // since it was made; 0 where the kernel did not say
	Done   bool          // the device has answered
}

// Bounds of what a broken kernel says.
const (
	maxHWQueues = 1 << 12
	maxTags     = 1 << 14
	maxRequests = 1 << 16
)

// States of a request (enum mq_rq_state).
const (
	requestInFlight = 1
	requestComplete = 2
)

// Disks goes over all disks: those whose inode is in the file system of block devices.
func Disks(t kernel.Target) ([]Disk, error) {
	errs := &kernel.Errors{}
	now, ops := monotonic(t, errs), names(t, "req_op", "REQ_OP_")
	sb := kernel.Global(t, errs, "struct super_block *", "blockdev_superblock")
	b := kernel.Object(t, errs, "struct bdev_inode", 0)
	inode := b.Get("vfs_inode").Addr
	seen := map[uint64]bool{}
	var out []Disk
	for i := range sb.Get("s_inodes").List("struct inode", "i_sb_list") {
		dev := b.Shift(i.Addr - inode).Get("bdev")
		if dev.Get("bd_disk").Uint() == 0 { // the file system's own inode, or a device that is gone
			continue
		}
		g := dev.Get("bd_disk").Deref()
		if seen[g.Addr] || g.Get("part0").Uint() != dev.Addr {
			continue
		}
		seen[g.Addr] = true
		d := Disk{Addr: g.Addr, Queue: g.Get("queue").Uint(), Name: g.Get("disk_name").String(), Major: g.Get("major").Int(), Minor: g.Get("first_minor").Int()}
		if d.Queue != 0 {
			d.requests(g.Get("queue").Deref(), now, ops, newAstray(errs))
		}
		out = append(out, d)
	}
	sorting.Stable(out, func(a, b Disk) int { return cmp.Or(cmp.Compare(a.Major, b.Major), cmp.Compare(a.Minor, b.Minor)) })
	if err := errs.Take(); err != nil {
		return out, fmt.Errorf("walk disks: %w (%d reads failed)", err, errs.N)
	}
	return out, nil
}

// requests goes over the tags of a queue, which other disks may share, and over what waits to be given to the driver again.
func (d *Disk) requests(q kernel.Value, now time.Duration, ops map[uint64]string, lost *astray) {
	if q.Get("tag_set").Uint() == 0 { // a driver that takes each I/O as it comes
		return
	}
	set := q.Get("tag_set").Deref()
	depth := min(set.Get("queue_depth").Int(), maxTags) // a queue of the set has no more tags
	for i := range min(set.Get("nr_hw_queues").Int(), maxHWQueues) {
		tags := set.Get("tags").At(i)
		if tags.Uint() == 0 {
			continue
		}
		for k := range min(tags.Get("nr_tags").Int(), depth) {
			r := tags.Get("rqs").At(k)
			empty := r.Uint() == 0
			if lost.far(empty) {
				return
			}
			if empty {
				continue
			}
			v := r.Deref()
			state := v.Get("state").Uint()
			if (state == requestInFlight || state == requestComplete) && v.Get("tag").Int() == k && v.Get("q").Uint() == d.Queue {
				d.Requests = append(d.Requests, readRequest(v, now, ops))
			}
		}
	}
	for h := range hardwareQueues(q) {
		for v := range h.Get("dispatch").List("struct request", "queuelist") {
			if d.Waiting = append(d.Waiting, readRequest(v, now, ops)); len(d.Waiting) > maxRequests {
				return
			}
		}
	}
	sorting.Stable(d.Requests, func(a, b Request) int { return cmp.Compare(b.Age, a.Age) })
}

// hardwareQueues goes over the struct blk_mq_hw_ctx of a queue: in an XArray since 5.18, in a table before.
func hardwareQueues(q kernel.Value) func(func(kernel.Value) bool) {
	return func(yield func(kernel.Value) bool) {
		h := q.Cast("struct blk_mq_hw_ctx")
		if q.Has("hctx_table") {
			for at := range XArray(q.Get("hctx_table")) {
				if !yield(h.Shift(at)) {
					return
				}
			}
			return
		}
		for i := range min(q.Get("nr_hw_queues").Int(), maxHWQueues) {
			if p := q.Get("queue_hw_ctx").At(i); p.Uint() != 0 && !yield(p.Deref()) {
				return
			}
		}
	}
}

func readRequest(v kernel.Value, now time.Duration, ops map[uint64]string) Request {
	const opMask = 0xff // REQ_OP_MASK
	op := v.Get("cmd_flags").Uint() & opMask
	r := Request{Addr: v.Addr, Tag: v.Get("tag").Int(), Op: strings.ReplaceAll(strings.ToLower(ops[op]), "_", " "), Write: op&1 != 0, Sector: v.Get("__sector").Uint(), Bytes: v.Get("__data_len").Uint(),
		Done: v.Get("state").Uint() == requestComplete}
	if r.Op == "" {
		r.Op = fmt.Sprintf("operation %d", op)
	}
	if start := time.Duration(v.Get("start_time_ns").Uint()); start > 0 && now > start {
		r.Age = now - start
	}
	return r
}

// monotonic is CLOCK_MONOTONIC at the last tick.
func monotonic(t kernel.Target, errs *kernel.Errors) time.Duration {
	tk := timekeeper(t, errs)
	ns := tk.Get("tkr_mono.xtime_nsec").Uint()>>tk.Get("tkr_mono.shift").Uint() + tk.Get("wall_to_monotonic.tv_nsec").Uint()
	return time.Duration(int64(tk.Get("xtime_sec").Uint())+int64(tk.Get("wall_to_monotonic.tv_sec").Uint()))*time.Second + time.Duration(ns)
}
