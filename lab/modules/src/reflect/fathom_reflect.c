// SPDX-License-Identifier: GPL-2.0
/*
 * fathom_reflect: a network device whose far end answers: what is sent comes back with source and destination exchanged.
 *
 * Every network namespace gets one, reflect0, reflect1 …, the way the loopback device is made (drivers/net/loopback.c):
 * register_pernet_device calls us for each namespace there is and each that will be made.
 *
 * set_net=0 leaves out dev_net_set. Then nobody says which namespace a device belongs to, and all of them appear in the
 * first one, init_net: alloc_netdev put it there.
 */
#include <linux/etherdevice.h>
#include <linux/icmp.h>
#include <linux/ip.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/udp.h>
#include <net/ip.h>
#include <net/net_namespace.h>
#include <net/netns/generic.h>

static bool set_net = true;
module_param(set_net, bool, 0444);
MODULE_PARM_DESC(set_net, "call dev_net_set, so that a device belongs to the namespace it is made for");

static unsigned int reflect_id;

struct reflect_net {
	struct net_device *dev;
};

/* swap_transport exchanges ports, and makes an echo request a reply. Sums over swapped fields stay as they are. */
static void swap_transport(struct sk_buff *skb, struct iphdr *ip, unsigned int off)
{
	struct icmphdr *icmp;
	struct udphdr *ports;

	switch (ip->protocol) {
	case IPPROTO_ICMP:
		if (!pskb_may_pull(skb, off + sizeof(*icmp)))
			return;
		icmp = (struct icmphdr *)(skb->data + off);
		if (icmp->type == ICMP_ECHO) {
			icmp->type = ICMP_ECHOREPLY;
			csum_replace2(&icmp->checksum, htons(ICMP_ECHO << 8), htons(ICMP_ECHOREPLY << 8));
		}
		return;
	case IPPROTO_TCP:
	case IPPROTO_UDP:
		if (!pskb_may_pull(skb, off + sizeof(*ports)))
			return;
		ports = (struct udphdr *)(skb->data + off);
		swap(ports->source, ports->dest);
		return;
	}
}

static netdev_tx_t reflect_xmit(struct sk_buff *skb, struct net_device *dev)
{
	unsigned int len = skb->len;
	struct ethhdr *eth;
	struct iphdr *ip;
	u8 mac[ETH_ALEN];

	skb_tx_timestamp(skb);
	if (skb_cow_head(skb, 0) || skb_linearize(skb) || len < ETH_HLEN)
		goto drop;
	skb_orphan(skb);
	skb_dst_drop(skb);
	eth = (struct ethhdr *)skb->data;
	ether_addr_copy(mac, eth->h_dest);
	ether_addr_copy(eth->h_dest, eth->h_source);
	ether_addr_copy(eth->h_source, mac);
	if (eth->h_proto == htons(ETH_P_IP) && len >= ETH_HLEN + sizeof(*ip)) {
		ip = (struct iphdr *)(skb->data + ETH_HLEN);
		swap(ip->saddr, ip->daddr);
		if (!(ip->frag_off & htons(IP_OFFSET)))
			swap_transport(skb, ip, ETH_HLEN + ip->ihl * 4);
	}
	skb->ip_summed = CHECKSUM_UNNECESSARY;
	skb->protocol = eth_type_trans(skb, dev);
	dev->stats.tx_packets++;
	dev->stats.tx_bytes += len;
	if (netif_rx(skb) == NET_RX_SUCCESS) {
		dev->stats.rx_packets++;
		dev->stats.rx_bytes += len;
	} else {
		dev->stats.rx_dropped++;
	}
	return NETDEV_TX_OK;
drop:
	dev->stats.tx_dropped++;
	dev_kfree_skb(skb);
	return NETDEV_TX_OK;
}

static const struct net_device_ops reflect_ops = {
	.ndo_start_xmit = reflect_xmit,
	.ndo_set_mac_address = eth_mac_addr,
	.ndo_validate_addr = eth_validate_addr,
};

static void reflect_setup(struct net_device *dev)
{
	ether_setup(dev);
	eth_hw_addr_random(dev);
	dev->flags |= IFF_NOARP; /* the far end has every address */
	dev->netdev_ops = &reflect_ops;
	dev->needs_free_netdev = true;
}

static int __net_init reflect_net_init(struct net *net)
{
	struct reflect_net *r = net_generic(net, reflect_id);
	struct net_device *dev;
	int err;

	dev = alloc_netdev(0, "reflect%d", NET_NAME_ENUM, reflect_setup);
	if (!dev)
		return -ENOMEM;
	if (set_net)
		dev_net_set(dev, net);
	err = register_netdev(dev);
	if (err) {
		free_netdev(dev);
		return err;
	}
	r->dev = dev;
	return 0;
}

static void __net_exit reflect_net_exit(struct net *net)
{
	struct reflect_net *r = net_generic(net, reflect_id);

	unregister_netdev(r->dev);
}

static struct pernet_operations reflect_net_ops = {
	.init = reflect_net_init,
	.exit = reflect_net_exit,
	.id = &reflect_id,
	.size = sizeof(struct reflect_net),
};

static int __init reflect_init(void)
{
	return register_pernet_device(&reflect_net_ops);
}

static void __exit reflect_exit(void)
{
	unregister_pernet_device(&reflect_net_ops);
}

module_init(reflect_init);
module_exit(reflect_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A network device that reflects what is sent");
