package sockets

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// parseSockaddr reads a struct sockaddr_in or sockaddr_in6; ok is false for another family, or if it is too short.
func parseSockaddr(b []byte) (a netip.AddrPort, ok bool) {
	if len(b) < 2 {
		return a, false
	}
	switch family := binary.NativeEndian.Uint16(b); {
	case family == unix.AF_INET && len(b) >= unix.SizeofSockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:])), true
	case family == unix.AF_INET6 && len(b) >= unix.SizeofSockaddrInet6-4: // the kernel takes it without the scope
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])), binary.BigEndian.Uint16(b[2:])), true
	}
	return a, false
}

// sockaddr writes an address as a socket of a family has it.
func sockaddr(family int, a netip.AddrPort, scope uint32) []byte {
	if family == unix.AF_INET {
		b := make([]byte, unix.SizeofSockaddrInet4)
		binary.NativeEndian.PutUint16(b, unix.AF_INET)
		binary.BigEndian.PutUint16(b[2:], a.Port())
		if ip := a.Addr().Unmap(); ip.Is4() {
			copy(b[4:], ip.AsSlice())
		}
		return b
	}
	b := make([]byte, unix.SizeofSockaddrInet6)
	binary.NativeEndian.PutUint16(b, unix.AF_INET6)
	binary.BigEndian.PutUint16(b[2:], a.Port())
	if a.Addr().IsValid() {
		ip := a.Addr().As16()
		copy(b[8:], ip[:])
	}
	if a.Addr().IsLinkLocalUnicast() && a.Addr().Is6() {
		binary.NativeEndian.PutUint32(b[24:], scope)
	}
	return b
}

// addrPort is an address of package net's.
func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ip, _ := netip.AddrFromSlice(t.IP)
	return netip.AddrPortFrom(ip.Unmap(), uint16(t.Port))
}

// Destination is where connections go past the kernel to.
type Destination struct {
	Net  netip.Prefix
	Port uint16 // 0: every
}

// ParseDestination reads ADDRESS, ADDRESS/LENGTH, and either with :PORT behind; IPv6 with a port stands in brackets.
func ParseDestination(s string) (d Destination, err error) {
	host := s
	if h, p, err := net.SplitHostPort(s); err == nil {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return d, fmt.Errorf("%s: the port is a number from 1 to 65535", s)
		}
		host, d.Port = h, uint16(n)
	}
	if a, err := netip.ParseAddr(host); err == nil {
		d.Net = netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen())
		return d, nil
	}
	if d.Net, err = netip.ParsePrefix(host); err != nil {
		return d, fmt.Errorf("%s is not ADDRESS[/LENGTH][:PORT]; the address stands in numbers", s)
	}
	d.Net = d.Net.Masked()
	return d, nil
}

// String is d as ParseDestination reads it.
func (d Destination) String() string {
	s := d.Net.String()
	if d.Net.IsSingleIP() {
		s = d.Net.Addr().String()
	}
	if d.Port == 0 {
		return s
	}
	return net.JoinHostPort(s, strconv.Itoa(int(d.Port)))
}

// has says if an address is among those.
func (d Destination) has(a netip.AddrPort) bool {
	return d.Net.Contains(a.Addr().Unmap()) && (d.Port == 0 || d.Port == a.Port())
}

// process is the process of a thread.
func process(tid uint32) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return 0, err
	}
	_, rest, ok := bytes.Cut(b, []byte("\nTgid:\t"))
	if !ok {
		return 0, fmt.Errorf("/proc/%d/status names no process", tid)
	}
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	return strconv.Atoi(string(line))
}
