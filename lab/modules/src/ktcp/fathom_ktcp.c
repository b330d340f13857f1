// SPDX-License-Identifier: GPL-2.0
/*
 * fathom_ktcp: a TCP echo server in the kernel, on port=.
 *
 * form=kern makes its socket with sock_create_kern: in the namespace that is named, here init_net, which it does not keep
 * alive. form=user makes it with sock_create, as a process would: in the namespace of who loads the module, which then
 * cannot go away while the module is there. accept() is for processes, it gives a descriptor; kernel_accept gives a socket.
 */
#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/net.h>
#include <linux/in.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <net/net_namespace.h>
#include <net/sock.h>

static ushort port = 4567;
module_param(port, ushort, 0444);
static char *form = "kern";
module_param(form, charp, 0444);
MODULE_PARM_DESC(form, "kern: sock_create_kern, user: sock_create");

struct ktcp_conn {
	struct list_head node;
	struct socket *sock;
	struct task_struct *task;
};

static struct socket *ktcp_listener;
static struct task_struct *ktcp_acceptor;
static LIST_HEAD(ktcp_conns);
static DEFINE_MUTEX(ktcp_lock); /* of ktcp_conns */

/* ktcp_echo serves one connection until its end; it is stopped, and freed, by ktcp_exit or by the acceptor. */
static int ktcp_echo(void *arg)
{
	struct ktcp_conn *c = arg;
	char *buf = kmalloc(PAGE_SIZE, GFP_KERNEL);

	while (buf && !kthread_should_stop()) {
		struct msghdr msg = {};
		struct kvec vec = { .iov_base = buf, .iov_len = PAGE_SIZE };
		int n = kernel_recvmsg(c->sock, &msg, &vec, 1, PAGE_SIZE, 0);

		if (n <= 0)
			break;
		while (vec.iov_base = buf, n > 0) {
			struct msghdr out = { .msg_flags = MSG_NOSIGNAL };
			int sent;

			vec.iov_len = n;
			sent = kernel_sendmsg(c->sock, &out, &vec, 1, n);
			if (sent <= 0)
				goto end;
			memmove(buf, buf + sent, n - sent);
			n -= sent;
		}
	}
end:
	kfree(buf);
	kernel_sock_shutdown(c->sock, SHUT_RDWR);
	while (!kthread_should_stop()) {
		set_current_state(TASK_INTERRUPTIBLE);
		if (!kthread_should_stop())
			schedule_timeout(HZ);
		__set_current_state(TASK_RUNNING);
	}
	return 0;
}

static void ktcp_drop(struct ktcp_conn *c)
{
	kernel_sock_shutdown(c->sock, SHUT_RDWR);
	kthread_stop(c->task);
	put_task_struct(c->task);
	sock_release(c->sock);
	list_del(&c->node);
	kfree(c);
}

/* ktcp_reap drops the connections that have ended. */
static void ktcp_reap(void)
{
	struct ktcp_conn *c, *next;

	mutex_lock(&ktcp_lock);
	list_for_each_entry_safe(c, next, &ktcp_conns, node)
		if (c->sock->sk->sk_shutdown == SHUTDOWN_MASK || c->sock->sk->sk_state == TCP_CLOSE)
			ktcp_drop(c);
	mutex_unlock(&ktcp_lock);
}

static int ktcp_serve(struct socket *sock)
{
	struct ktcp_conn *c = kzalloc(sizeof(*c), GFP_KERNEL);

	if (!c)
		return -ENOMEM;
	c->sock = sock;
	c->task = kthread_create(ktcp_echo, c, "fathom_ktcp_c");
	if (IS_ERR(c->task)) {
		int err = PTR_ERR(c->task);

		kfree(c);
		return err;
	}
	get_task_struct(c->task);
	mutex_lock(&ktcp_lock);
	list_add(&c->node, &ktcp_conns);
	mutex_unlock(&ktcp_lock);
	wake_up_process(c->task);
	return 0;
}

static int ktcp_accept(void *arg)
{
	while (!kthread_should_stop()) {
		struct socket *sock;
		int err = kernel_accept(ktcp_listener, &sock, 0);

		if (!err && ktcp_serve(sock))
			sock_release(sock);
		if (err)
			schedule_timeout_interruptible(HZ / 10);
		ktcp_reap();
	}
	return 0;
}

static int ktcp_create(void)
{
	if (!strcmp(form, "user"))
		return sock_create(AF_INET, SOCK_STREAM, IPPROTO_TCP, &ktcp_listener);
	if (!strcmp(form, "kern"))
		return sock_create_kern(&init_net, AF_INET, SOCK_STREAM, IPPROTO_TCP, &ktcp_listener);
	return -EINVAL;
}

static int __init ktcp_init(void)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons(port) };
	int err = ktcp_create();

	if (err)
		return err;
	sock_set_reuseaddr(ktcp_listener->sk);
	err = kernel_bind(ktcp_listener, (struct sockaddr *)&addr, sizeof(addr));
	if (!err)
		err = kernel_listen(ktcp_listener, 16);
	if (err)
		goto release;
	ktcp_acceptor = kthread_run(ktcp_accept, NULL, "fathom_ktcp");
	if (IS_ERR(ktcp_acceptor)) {
		err = PTR_ERR(ktcp_acceptor);
		goto release;
	}
	return 0;
release:
	sock_release(ktcp_listener);
	return err;
}

static void __exit ktcp_exit(void)
{
	struct ktcp_conn *c, *next;

	kernel_sock_shutdown(ktcp_listener, SHUT_RDWR); /* kernel_accept returns */
	kthread_stop(ktcp_acceptor);
	mutex_lock(&ktcp_lock);
	list_for_each_entry_safe(c, next, &ktcp_conns, node)
		ktcp_drop(c);
	mutex_unlock(&ktcp_lock);
	sock_release(ktcp_listener);
}

module_init(ktcp_init);
module_exit(ktcp_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A TCP echo server in the kernel");
