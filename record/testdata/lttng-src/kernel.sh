# Runs in a guest of Debian's 6.1, whose root is that of a machine with lttng-tools, babeltrace2 and kmod (a read-only view of it), and
# makes traces in $PWD/out. There must be: wl (of wl.c, static), modules/*.ko (of lttng-modules, built for that kernel without the probe
# timer), and builtin/modules.{order,builtin,builtin.modinfo} of the kernel's package.
set -e
here=$PWD
mount -t tmpfs none /run
mkdir -p /run/lock /run/up /run/work /run/home out
export HOME=/run/home
mount -t overlay overlay -o lowerdir=/usr/lib,upperdir=/run/up,workdir=/run/work /usr/lib
to=/usr/lib/modules/$(uname -r)
mkdir -p $to/extra
cp modules/*.ko $to/extra
cp builtin/modules.* $to
depmod -a
ip link set lo up
lttng-sessiond -d
until lttng list -k > out/events; do sleep 1; done

session() { # name, options of the channel, events, system calls
	lttng create $1 --output=$here/out/$1
	lttng enable-channel -k ch $2
	lttng enable-event -k "$3" -c ch
	lttng enable-event -k --syscall $4 -c ch
	[ $1 = lost ] || lttng add-context -k -t pid -t tid -t procname -c ch
	lttng start
}
end() { lttng stop; lttng destroy; }

session small '--num-subbuf 16 --subbuf-size 16384' sched_switch,sched_process_exec,net_dev_queue,net_if_receive_skb,skb_kfree,irq_softirq_entry,signal_deliver getppid,execve,openat,wait4
./wl sys 50; ./wl udp 20; ./wl exec 2
end
session large '--num-subbuf 16 --subbuf-size 1048576' 'sched_*,net_*,irq_*,skb_*' -a
./wl sys 260000; ./wl udp 1000
end
session lost '--num-subbuf 2 --subbuf-size 4096 --discard' sched_switch -a
./wl sys 50000
end
