package walk

import (
	"fmt"

	"github.com/fathom-trace/fathom/kernel"
)

// IPCObject is an object of System V IPC.
type IPCObject struct {
	Kind     string // "sem", "msg", "shm"
	Addr     uint64
	Key, ID  int
	UID      int
	Mode     uint64
	Size     uint64 // sem: semaphores; msg: bytes in the queue; shm: bytes
	Users    uint64 // msg: messages; shm: attachments
	NSNumber uint64 // inode of the IPC namespace
}

// ipcKinds are the objects of struct ipc_namespace.ids, in its order (IPC_SEM_IDS … in ipc/util.h).
var ipcKinds = []struct{ kind, typ, perm, size, users string }{
	{"sem", "struct sem_array", "sem_perm", "sem_nsems", ""},
	{"msg", "struct msg_queue", "q_perm", "q_cbytes", "q_qnum"},
	{"shm", "struct shmid_kernel", "shm_perm", "shm_segsz", "shm_nattch"},
}

// IPC reads the objects of the IPC namespaces that tasks are in.
func IPC(t kernel.Target) ([]IPCObject, error) {
	errs := &kernel.Errors{}
	seen := map[uint64]bool{0: true}
	var out []IPCObject
	read := func(ns kernel.Value) {
		for i, k := range ipcKinds {
			object := kernel.Object(t, errs, k.typ, 0)
			off := object.Get(k.perm).Addr
			for at := range XArray(ns.Get("ids").At(i).Get("ipcs_idr.idr_rt")) {
				v := object.Shift(at - off)
				p := v.Get(k.perm)
				o := IPCObject{Kind: k.kind, Addr: v.Addr, Key: p.Get("key").Int(), ID: p.Get("id").Int(), UID: p.Get("uid.val").Int(),
					Mode: p.Get("mode").Uint() & 0o777, Size: v.Get(k.size).Uint(), NSNumber: ns.Get("ns.inum").Uint()}
				if k.users != "" {
					o.Users = v.Get(k.users).Uint()
				}
				out = append(out, o)
			}
		}
	}
	for task, err := range Tasks(t) {
		if err != nil {
			errs.Add(err)
			continue
		}
		v := kernel.Object(t, errs, "struct task_struct", task.Addr)
		if v.Get("nsproxy").Uint() == 0 { // it has exited
			continue
		}
		ns := v.Get("nsproxy.ipc_ns")
		if at := ns.Uint(); !seen[at] {
			seen[at] = true
			read(ns.Deref())
		}
	}
	if err := errs.Take(); err != nil {
		return out, fmt.Errorf("walk IPC objects: %w (%d reads failed)", err, errs.N)
	}
	return out, nil
}
