package dead

import (
	"cmp"
	"slices"

	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/kernel/walk"
)

// kind is a row of the table of what programs can run over: an iterator of the kernel (kernel/bpf/*_iter.c), in whose order
// and with whose omissions the objects come.
type kind struct {
	name  string
	doc   string // what the context holds
	tasks bool   // the objects belong to tasks
	walk  func(t kernel.Target, errs *kernel.Errors, yield func(object) bool) error
}

// object is what a program is run for.
type object struct {
	task   *walk.Task        // whose it is; nil for kinds that belong to none
	fields map[string]uint64 // members of the iterator's context
}

var kinds = []kind{
	{"task", "every thread: ctx.task", true, walkTasks},
	{"task_file", "every open file of every process: ctx.task, ctx.fd, ctx.file", true, walkFiles},
	{"task_vma", "every mapping of every process: ctx.task, ctx.vma", true, walkAreas},
	{"tcp", "every TCP socket, of all network namespaces without a table of their own: ctx.sk_common, ctx.uid", false, walkTCP},
	{"udp", "every UDP socket, of all network namespaces without a table of their own: ctx.udp_sk, ctx.uid, ctx.bucket", false, walkUDP},
	{"unix", "every Unix socket, of all network namespaces: ctx.unix_sk, ctx.uid", false, walkUnix},
	{"netlink", "every netlink socket, of all network namespaces: ctx.sk", false, walkNetlink},
	{"bpf_map", "every BPF map: ctx.map", false, walkIDR("map_idr", "map")},
	{"bpf_prog", "every BPF program: ctx.prog", false, walkIDR("prog_idr", "prog")},
}

func find(name string) (kind, bool) {
	i := slices.IndexFunc(kinds, func(k kind) bool { return k.name == name })
	if i < 0 {
		return kind{}, false
	}
	return kinds[i], true
}

// tasks are all threads by their number, as task_seq_get_next goes over them. The idle tasks, which all have the number 0,
// are not among them. The tasks that were found are given also where not all were.
func tasks(t kernel.Target) ([]walk.Task, error) {
	var out []walk.Task
	var failed error
	for task, err := range walk.Tasks(t) {
		switch {
		case err != nil:
			failed = err
		case task.PID != 0:
			out = append(out, task)
		}
	}
	sorting.Stable(out, func(a, b walk.Task) int { return cmp.Compare(a.PID, b.PID) })
	return out, failed
}

func walkTasks(t kernel.Target, _ *kernel.Errors, yield func(object) bool) error {
	all, err := tasks(t)
	for i := range all {
		if !yield(object{&all[i], map[string]uint64{"task": all[i].Addr}}) {
			break
		}
	}
	return err
}

// owners are the tasks whose files and memory are walked: not the threads that share the files of their leader
// (skip_if_dup_files in kernel/bpf/task_iter.c).
func owners(t kernel.Target, errs *kernel.Errors) ([]walk.Task, error) {
	all, err := tasks(t)
	return slices.DeleteFunc(all, func(k walk.Task) bool {
		v := kernel.Object(t, errs, "struct task_struct", k.Addr)
		return k.PID != k.TGID && v.Get("files").Uint() == v.Get("group_leader.files").Uint()
	}), err
}

func walkFiles(t kernel.Target, errs *kernel.Errors, yield func(object) bool) error {
	all, err := owners(t, errs)
	for i := range all {
		for fd, f := range walk.Descriptors(all[i], errs) {
			if !yield(object{&all[i], map[string]uint64{"task": all[i].Addr, "fd": uint64(fd), "file": f.Addr}}) {
				return err
			}
		}
	}
	return err
}

func walkAreas(t kernel.Target, errs *kernel.Errors, yield func(object) bool) error {
	all, err := owners(t, errs)
	for i := range all {
		for v := range walk.Areas(all[i], errs) {
			if !yield(object{&all[i], map[string]uint64{"task": all[i].Addr, "vma": v.Addr}}) {
				return err
			}
		}
	}
	return err
}

// States of a struct sock_common whose struct is no struct sock (include/net/tcp_states.h).
const (
	tcpTimeWait   = 6
	tcpNewSynRecv = 12
)

func walkTCP(t kernel.Target, errs *kernel.Errors, yield func(object) bool) error {
	for sk := range walk.TCPSockets(t, errs) {
		uid := uint64(0)
		switch sk.Get("skc_state").Uint() {
		case tcpTimeWait:
		case tcpNewSynRecv:
			uid = owner(sk.Cast("struct request_sock").Get("rsk_listener").Deref())
		default:
			uid = owner(sk.Cast("struct sock"))
		}
		if !yield(object{fields: map[string]uint64{"sk_common": sk.Addr, "uid": uid}}) {
			break
		}
	}
	return nil
}

// owner is sock_i_uid: whose a socket is that a file stands for, 0 for others.
func owner(sk kernel.Value) uint64 {
	if sk.Get("sk_socket").Uint() == 0 {
		return 0
	}
	return sk.Get("sk_uid.val").Uint()
}

func walkUDP(t kernel.Target, errs *kernel.Errors, yield func(object) bool) error {
	for bucket, sk := range walk.UDPSockets(t, errs) {
		if !yield(object{fields: map[string]uint64{"udp_sk": sk.Addr, "uid": owner(sk), "bucket": uint64(bucket)}}) {
			break
		}
	}
	return nil
}

func walkUnix(t kernel.Target, errs *kernel.Errors, yield func(object) bool) error {
	for sk := range walk.UnixSockets(t, errs) {
		if !yield(object{fields: map[string]uint64{"unix_sk": sk.Addr, "uid": owner(sk)}}) {
			break
		}
	}
	return nil
}

func walkNetlink(t kernel.Target, errs *kernel.Errors, yield func(object) bool) error {
	for sk := range walk.NetlinkSockets(t, errs) {
		if !yield(object{fields: map[string]uint64{"sk": sk.Addr}}) {
			break
		}
	}
	return nil
}

// walkIDR walks what the kernel numbers by an IDR, in the order of the numbers.
func walkIDR(idr, member string) func(kernel.Target, *kernel.Errors, func(object) bool) error {
	return func(t kernel.Target, errs *kernel.Errors, yield func(object) bool) error {
		for at := range walk.XArray(kernel.Global(t, errs, "struct idr", idr).Get("idr_rt")) {
			if !yield(object{fields: map[string]uint64{member: at}}) {
				break
			}
		}
		return nil
	}
}
