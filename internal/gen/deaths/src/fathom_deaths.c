// SPDX-License-Identifier: GPL-2.0
/*
 * fathom_deaths: ways to make a kernel complain or die, each in the context that is asked for. Only for guests.
 *
 * echo WAY CONTEXT > /proc/fathom_deaths, CONTEXT: task, kthread, work, softirq, irq, nmi; "stop" ends what waits or spins.
 *
 * A comment "@WAY" marks the line that an oops of that way must be traced to.
 */
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/hrtimer.h>
#include <linux/kfence.h>
#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/nmi.h>
#include <linux/objtool.h>
#include <linux/proc_fs.h>
#include <linux/refcount.h>
#include <linux/rwsem.h>
#include <linux/sched.h>
#include <linux/semaphore.h>
#include <linux/skbuff.h>
#include <linux/slab.h>
#include <linux/timer.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <asm/nmi.h>

struct deaths_name { u64 pad[5]; char *text; };
struct deaths_order { struct list_head node; u64 number; struct deaths_name *name; void (*done)(void); };

static volatile u64 deaths_sink;   /* so that reads stay */
static bool deaths_stop;           /* ends what spins or waits */
static char __user *deaths_user;   /* memory of the process that asked */
static const volatile int deaths_constant = 7;
static u8 deaths_data[16] = { 0xc3 };
static const struct proc_ops deaths_ops;
static DEFINE_SPINLOCK(deaths_spin);
static DEFINE_MUTEX(deaths_mutex);
static DECLARE_RWSEM(deaths_rwsem);
static struct semaphore deaths_sem = __SEMAPHORE_INITIALIZER(deaths_sem, 1);
static DECLARE_COMPLETION(deaths_completion);
static DECLARE_WAIT_QUEUE_HEAD(deaths_queue);

/* pointers that the compiler knows nothing of */
static __always_inline void *deaths_hidden(unsigned long v)
{
	void *p = (void *)v;

	OPTIMIZER_HIDE_VAR(p);
	return p;
}

static noinline void deaths_null_read(void)
{
	struct deaths_order *o = deaths_hidden(0);

	deaths_sink = READ_ONCE(o->number); /* @null_read */
}

static noinline void deaths_null_write(void)
{
	struct deaths_order *o = deaths_hidden(0);

	WRITE_ONCE(o->name, NULL); /* @null_write */
}

static noinline void deaths_null_call(void)
{
	struct deaths_order *o = kzalloc(sizeof(*o), GFP_ATOMIC);

	OPTIMIZER_HIDE_VAR(o);
	o->done(); /* @null_call */
	deaths_sink++;
}

static __always_inline char deaths_first(struct deaths_name *n)
{
	return READ_ONCE(n->text)[0]; /* @inlined */
}

static __always_inline char deaths_initial(struct deaths_order *o)
{
	return deaths_first(o->name);
}

static noinline void deaths_inlined(void)
{
	struct deaths_order *o = kzalloc(sizeof(*o), GFP_ATOMIC);

	OPTIMIZER_HIDE_VAR(o);
	deaths_sink = deaths_initial(o);
}

static noinline void deaths_skb(void)
{
	struct sk_buff *skb = deaths_hidden(0);

	deaths_sink = READ_ONCE(skb->len); /* @skb */
}

static noinline void deaths_bad_read(void)
{
	char *p = vmalloc(PAGE_SIZE); /* a guard page follows */

	OPTIMIZER_HIDE_VAR(p);
	deaths_sink = *(volatile u64 *)(p + PAGE_SIZE + 8); /* @bad_read */
}

static noinline void deaths_bad_write(void)
{
	u64 *p = deaths_hidden(0xffffffffff000000ul);

	WRITE_ONCE(*p, 1); /* @bad_write */
}

static noinline void deaths_rodata(void)
{
	int *p = deaths_hidden((unsigned long)&deaths_ops);

	WRITE_ONCE(*p, 8); /* @rodata */
}

static noinline void deaths_text(void)
{
	char *p = deaths_hidden((unsigned long)&schedule);

	WRITE_ONCE(*p, 0x90); /* @text */
}

static noinline void deaths_data_call(void)
{
	void (*fn)(void) = deaths_hidden((unsigned long)deaths_data);

	fn(); /* @data_call */
	deaths_sink++;
}

static noinline void deaths_wild_call(void)
{
	void (*fn)(void) = deaths_hidden(0xffffffffff000000ul);

	fn(); /* @wild_call */
	deaths_sink++;
}

static noinline void deaths_user_read(void)
{
	char *p = deaths_hidden((unsigned long)deaths_user);

	deaths_sink = READ_ONCE(*p); /* @user_read */
}

static noinline void deaths_user_write(void)
{
	char *p = deaths_hidden((unsigned long)deaths_user);

	WRITE_ONCE(*p, 1); /* @user_write */
}

static noinline void deaths_user_call(void)
{
	void (*fn)(void) = deaths_hidden((unsigned long)deaths_user);

	fn(); /* @user_call */
	deaths_sink++;
}

static noinline void deaths_gpf(void)
{
	u64 *p = deaths_hidden(0x6b6b6b6b6b6b6b6bul);

	deaths_sink = READ_ONCE(*p); /* @gpf */
}

static noinline void deaths_poison(void)
{
	struct deaths_order a, *o = &a;
	LIST_HEAD(h);

	list_add(&a.node, &h);
	list_del(&a.node);
	OPTIMIZER_HIDE_VAR(o);
	WRITE_ONCE(o->node.next->prev, &h); /* @poison */
}

static noinline void deaths_gpf_call(void)
{
	void (*fn)(void) = deaths_hidden(0x4141414141414140ul);

	fn(); /* @gpf_call */
	deaths_sink++;
}

static noinline void deaths_stack_segment(void)
{
	asm volatile("push %%rbp; mov %0, %%rbp; mov 8(%%rbp), %%rax; pop %%rbp" : : "r"(0x6b6b6b6b6b6b6b6bul) : "rax"); /* @stack_segment */
}

static noinline void deaths_bug(void)
{
	deaths_sink++;
	BUG(); /* @bug */
}

static noinline void deaths_bug_on(void)
{
	BUG_ON(deaths_constant == 7); /* @bug_on */
	deaths_sink++;
}

static noinline void deaths_warn(void)
{
	WARN(deaths_constant == 7, "fathom_deaths: seven is %d\n", deaths_constant); /* @warn */
}

static noinline void deaths_warn_on(void)
{
	WARN_ON(deaths_constant == 7); /* @warn_on */
}

static noinline void deaths_warn_core(void)
{
	remove_proc_entry("fathom_no_such_entry", NULL); /* @warn_core */
	deaths_sink++;
}

static noinline void deaths_refcount(void)
{
	refcount_t r = REFCOUNT_INIT(0);

	refcount_inc(&r); /* @refcount */
	deaths_sink = refcount_read(&r);
}

static noinline void deaths_underflow(void)
{
	refcount_t r = REFCOUNT_INIT(0);

	deaths_sink = refcount_dec_and_test(&r); /* @underflow */
}

static noinline void deaths_divide(void)
{
	volatile int zero = 0;

	deaths_sink = 5 / zero; /* @divide */
}

static noinline void deaths_quotient(void)
{
	volatile int least = INT_MIN, minus = -1;

	deaths_sink = least / minus; /* @quotient */
}

static noinline void deaths_ud2(void)
{
	asm volatile(".byte 0x0f, 0x0b"); /* @ud2 */
	deaths_sink++;
}

static noinline void deaths_int3(void)
{
	asm volatile("int3"); /* @int3 */
	deaths_sink++;
}

static noinline void deaths_list_del(void)
{
	struct deaths_order *o = kzalloc(sizeof(*o), GFP_ATOMIC);
	LIST_HEAD(h);

	list_add(&o->node, &h);
	list_del(&o->node);
	list_del(&o->node); /* @list_del */
}

static noinline void deaths_list_add(void)
{
	struct deaths_order a, b;
	LIST_HEAD(h);

	list_add(&a.node, &h);
	h.next = &b.node;
	b.node.prev = &b.node;
	list_add(&a.node, &h); /* @list_add */
}

static noinline void deaths_usercopy(void)
{
	char *p = kmalloc(64, GFP_KERNEL);
	unsigned long n = 128;

	OPTIMIZER_HIDE_VAR(n); OPTIMIZER_HIDE_VAR(p); /* a size that is known is checked elsewhere */
	deaths_sink = copy_to_user(deaths_user, p, n); /* @usercopy */
}

static noinline void deaths_fortify(void)
{
	struct deaths_name a = {}, b;
	size_t n = sizeof(a) + 8;

	OPTIMIZER_HIDE_VAR(n);
	memcpy(&b.text, &a, n); /* @fortify */
	deaths_sink = (unsigned long)b.text;
}

static noinline int deaths_deeper(int n)
{
	volatile char b[512];

	b[0] = n;
	return n < 0 ? 0 : deaths_deeper(n + 1) + b[0];
}

static noinline void deaths_stack(void)
{
	deaths_sink = deaths_deeper(0);
}

static noinline void deaths_protector(void)
{
	volatile char b[16];
	volatile char *p = b;
	int i;

	for (i = 0; i < 40; i++)
		p[i] = 0x41;
	deaths_sink = p[1];
} /* @protector: its end looks at the guard */

static noinline void deaths_double_fault(void)
{
	asm volatile("mov %0, %%rsp; push %%rax" : : "r"(0xffffffffff000000ul)); /* @double_fault */
}
STACK_FRAME_NON_STANDARD(deaths_double_fault);

static noinline void deaths_panic(void)
{
	panic("fathom_deaths asked for it"); /* @panic */
}

static noinline void deaths_atomic(void)
{
	spin_lock(&deaths_spin);
	msleep(10); /* @atomic */
	spin_unlock(&deaths_spin);
}

static noinline void deaths_spins(void)
{
	preempt_disable();
	while (!READ_ONCE(deaths_stop)) /* @spins */
		cpu_relax();
	preempt_enable();
}

static noinline void deaths_spinlock(void)
{
	spin_lock(&deaths_spin);
	spin_lock(&deaths_spin); /* @spinlock; "stop" unlocks */
	spin_unlock(&deaths_spin);
}

static noinline void deaths_rcu(void)
{
	rcu_read_lock();
	while (!READ_ONCE(deaths_stop)) { /* @rcu */
		touch_softlockup_watchdog();
		cpu_relax();
	}
	rcu_read_unlock();
}

static noinline void deaths_irqs_off(void)
{
	local_irq_disable();
	while (!READ_ONCE(deaths_stop)) /* @irqs_off */
		cpu_relax();
	local_irq_enable();
}

static int deaths_grace(void *unused)
{
	synchronize_rcu();
	return 0;
}

static int deaths_holder(void *unused)
{
	mutex_lock(&deaths_mutex);
	down_write(&deaths_rwsem);
	down(&deaths_sem);
	complete(&deaths_completion);
	while (!READ_ONCE(deaths_stop))
		msleep(20);
	up(&deaths_sem);
	up_write(&deaths_rwsem);
	mutex_unlock(&deaths_mutex);
	return 0;
}

/* another task takes every lock there is; it has them when this returns */
static void deaths_hold(void)
{
	reinit_completion(&deaths_completion);
	kthread_run(deaths_holder, NULL, "deaths_holder");
	wait_for_completion(&deaths_completion);
}

static noinline void deaths_hung_mutex(void)
{
	deaths_hold();
	mutex_lock(&deaths_mutex); /* @hung_mutex */
	mutex_unlock(&deaths_mutex);
}

static noinline void deaths_hung_rwsem(void)
{
	deaths_hold();
	down_read(&deaths_rwsem); /* @hung_rwsem */
	up_read(&deaths_rwsem);
}

static noinline void deaths_hung_sem(void)
{
	deaths_hold();
	down(&deaths_sem); /* @hung_sem */
	up(&deaths_sem);
}

static noinline void deaths_hung_completion(void)
{
	reinit_completion(&deaths_completion);
	wait_for_completion(&deaths_completion); /* @hung_completion */
	deaths_sink++;
}

static noinline void deaths_hung_event(void)
{
	wait_event(deaths_queue, READ_ONCE(deaths_stop)); /* @hung_event */
	deaths_sink++;
}

static noinline void deaths_hung_timeout(void)
{
	reinit_completion(&deaths_completion);
	wait_for_completion_timeout(&deaths_completion, 1000 * HZ); /* @hung_timeout */
	deaths_sink++;
}

/* KFENCE looks at one allocation a millisecond */
static noinline void deaths_freed(void)
{
	while (!READ_ONCE(deaths_stop)) {
		u64 *p = kmalloc(40, GFP_KERNEL);

		OPTIMIZER_HIDE_VAR(p);
		kfree(p);
		deaths_sink = READ_ONCE(p[2]); /* @freed */
		cond_resched();
	}
}

static noinline void deaths_beyond(void)
{
	while (!READ_ONCE(deaths_stop)) {
		char *p = kmalloc(32, GFP_KERNEL), *q = p;

		OPTIMIZER_HIDE_VAR(q);
		/* an object lies at either end of its page */
		deaths_sink = READ_ONCE(q[32]) + READ_ONCE(q[-1]); /* @beyond */
		kfree(p);
		cond_resched();
	}
}

static noinline void deaths_twice(void)
{
	while (!READ_ONCE(deaths_stop)) {
		void *p = kmalloc(40, GFP_KERNEL), *q = p;

		OPTIMIZER_HIDE_VAR(q);
		if (is_kfence_address(p)) {
			kfree(p);
			kfree(q); /* @twice */
			break;
		}
		kfree(p);
		cond_resched();
	}
	deaths_sink++;
}

#define WAY(name) { #name, deaths_##name }
static const struct deaths_way { const char *name; void (*fn)(void); } deaths_ways[] = {
	WAY(null_read), WAY(null_write), WAY(null_call), WAY(inlined), WAY(skb), WAY(bad_read), WAY(bad_write), WAY(rodata),
	WAY(text), WAY(data_call), WAY(wild_call), WAY(user_read), WAY(user_write), WAY(user_call), WAY(gpf), WAY(poison),
	WAY(gpf_call), WAY(stack_segment), WAY(bug), WAY(bug_on), WAY(warn), WAY(warn_on), WAY(warn_core), WAY(refcount),
	WAY(underflow), WAY(divide), WAY(quotient), WAY(ud2), WAY(int3), WAY(list_del), WAY(list_add), WAY(usercopy),
	WAY(fortify), WAY(stack), WAY(protector), WAY(double_fault), WAY(panic), WAY(atomic), WAY(spins), WAY(spinlock),
	WAY(rcu), WAY(irqs_off), WAY(hung_mutex), WAY(hung_rwsem), WAY(hung_sem), WAY(hung_completion), WAY(hung_event),
	WAY(hung_timeout), WAY(freed), WAY(beyond), WAY(twice),
};

static void (*deaths_armed)(void);
static bool deaths_await_nmi;
static struct timer_list deaths_timer;
static struct hrtimer deaths_hrtimer;

/* each context calls the way, and does something after it: no tail calls */
static noinline void deaths_go(void)
{
	deaths_armed();
	deaths_sink++;
}

static void deaths_in_timer(struct timer_list *unused) { deaths_go(); }
static void deaths_in_work(struct work_struct *unused) { deaths_go(); }
static int deaths_in_thread(void *unused) { deaths_go(); return 0; }
static enum hrtimer_restart deaths_in_hrtimer(struct hrtimer *unused) { deaths_go(); return HRTIMER_NORESTART; }
static DECLARE_WORK(deaths_work, deaths_in_work);

static int deaths_in_nmi(unsigned int reason, struct pt_regs *unused)
{
	if (!deaths_await_nmi) /* one for somebody else, such as a back trace */
		return NMI_DONE;
	deaths_go();
	return NMI_HANDLED;
}

static int deaths_start(const char *context)
{
	if (!strcmp(context, "task")) {
		deaths_go();
	} else if (!strcmp(context, "kthread")) {
		kthread_run(deaths_in_thread, NULL, "deaths_thread");
	} else if (!strcmp(context, "work")) {
		schedule_work(&deaths_work);
	} else if (!strcmp(context, "softirq")) {
		mod_timer(&deaths_timer, jiffies + 2);
	} else if (!strcmp(context, "irq")) {
		hrtimer_start(&deaths_hrtimer, ms_to_ktime(5), HRTIMER_MODE_REL_HARD);
	} else if (!strcmp(context, "nmi")) {
		deaths_await_nmi = true;
		pr_info("fathom_deaths: waits for an NMI\n"); /* of the host */
	} else {
		return -EINVAL;
	}
	return 0;
}

static ssize_t deaths_write(struct file *f, const char __user *u, size_t n, loff_t *o)
{
	char b[64] = {}, *context = b, *way;
	int i, err;

	if (n >= sizeof(b) || copy_from_user(b, u, n))
		return -EINVAL;
	way = strsep(&context, " ");
	if (!strcmp(way, "stop")) {
		WRITE_ONCE(deaths_stop, true);
		arch_spin_unlock(&deaths_spin.rlock.raw_lock); /* for another task: preemption is its own */
		complete_all(&deaths_completion);
		wake_up_all(&deaths_queue);
		return n;
	}
	WRITE_ONCE(deaths_stop, false);
	spin_lock_init(&deaths_spin);
	deaths_user = (char __user *)u;
	for (i = 0; context && i < ARRAY_SIZE(deaths_ways); i++)
		if (!strcmp(way, deaths_ways[i].name)) {
			if (deaths_ways[i].fn == deaths_rcu || deaths_ways[i].fn == deaths_irqs_off)
				kthread_run(deaths_grace, NULL, "deaths_grace");
			deaths_armed = deaths_ways[i].fn;
			err = deaths_start(strim(context));
			return err ? err : n;
		}
	return -ENOENT;
}

static const struct proc_ops deaths_ops = { .proc_write = deaths_write };

static int __init deaths_init(void)
{
	timer_setup(&deaths_timer, deaths_in_timer, TIMER_PINNED);
	hrtimer_init(&deaths_hrtimer, CLOCK_MONOTONIC, HRTIMER_MODE_REL_HARD);
	deaths_hrtimer.function = deaths_in_hrtimer;
	register_nmi_handler(NMI_LOCAL, deaths_in_nmi, 0, "fathom_deaths");
	return proc_create("fathom_deaths", 0200, NULL, &deaths_ops) ? 0 : -ENOMEM;
}
module_init(deaths_init); /* there is no exit: what died still has it */

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("ways to die, on request");
