package sockets

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// deferAccept sets the option of a TCP socket, and reports whether it was set. A longer time is the user's own: it is
// left alone.
func deferAccept(l syscall.Conn, on bool) (was bool) {
	rc, err := l.SyscallConn()
	if err != nil {
		return false
	}
	rc.Control(func(fd uintptr) {
		const own = int(deferTime / time.Second)
		is, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT)
		was = err == nil && is == own
		switch {
		case err == nil && is == 0 && on:
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, own)
		case was && !on:
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 0)
		}
	})
	return was
}

// requests returns the clients that the kernel has not let in yet, by any socket of this network namespace and of IPv4,
// of IPv6, or of both. It takes no privilege, but systemd may forbid netlink (RestrictAddressFamilies). For each of the
// two the kernel goes through all connections, which takes some ms if there are 100,000.
func requests(v4, v6 bool) ([]request, error) {
	var families []byte
	if v4 {
		families = append(families, unix.AF_INET)
	}
	if v6 {
		families = append(families, unix.AF_INET6)
	}
	all, err := diagnosed(families...)
	if err != nil {
		return listed(os.DirFS("/proc"))
	}
	return all, nil
}

// diagnosed asks sock_diag(7).
func diagnosed(families ...byte) (all []request, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, os.NewSyscallError("socket AF_NETLINK", err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}); err != nil {
		return nil, os.NewSyscallError("setsockopt SO_RCVTIMEO", err)
	}
	for _, family := range families {
		if err := unix.Sendto(fd, diagRequest(family), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return nil, os.NewSyscallError("sendto NETLINK_SOCK_DIAG", err)
		}
		if all, err = receiveDiag(fd, all); err != nil {
			return nil, err
		}
	}
	return all, nil
}

const synReceived = 3 // TCP_SYN_RECV

// diagRequest returns a message with an inet_diag_req_v2 that asks for all sockets of TCP that are in the handshake.
func diagRequest(family byte) []byte {
	const requestSize = 56
	b := make([]byte, unix.SizeofNlMsghdr+requestSize)
	binary.NativeEndian.PutUint32(b[0:], uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], unix.SOCK_DIAG_BY_FAMILY)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	r := b[unix.SizeofNlMsghdr:]
	r[0], r[1] = family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(r[4:], 1<<synReceived)
	return b
}

// receiveDiag appends what the kernel answers.
func receiveDiag(fd int, all []request) ([]request, error) {
	buffer := make([]byte, 32<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buffer, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, os.NewSyscallError("recvfrom NETLINK_SOCK_DIAG", err)
		}
		messages, err := syscall.ParseNetlinkMessage(buffer[:n])
		if err != nil {
			return nil, fmt.Errorf("sock_diag: %w", err)
		}
		for _, m := range messages {
			switch m.Header.Type {
			case unix.NLMSG_DONE:
				return all, nil
			case unix.NLMSG_ERROR:
				return nil, errors.New("sock_diag: refused")
			}
			if r, ok := parseDiag(m.Data); ok {
				all = append(all, r)
			}
		}
	}
}

// parseDiag reads an inet_diag_msg: family, state, timer and retries, of a byte each, ports of source and destination,
// and the rest of the addresses, with all of which the time that is left to the timer is at 52, in milliseconds.
func parseDiag(b []byte) (r request, ok bool) {
	if len(b) < 56 || b[1] != synReceived {
		return r, false
	}
	left := time.Duration(binary.NativeEndian.Uint32(b[52:])) * time.Millisecond
	at := port{binary.BigEndian.Uint16(b[4:]), b[0] == unix.AF_INET6}
	return request{port: at, retries: b[3], due: left}, true
}

// listed reads proc_net_tcp(5), which takes longer where there are many connections.
func listed(proc fs.FS) (all []request, err error) {
	const inHandshake, hertz = "03", 100
	for _, table := range []string{"self/net/tcp", "self/net/tcp6"} {
		_, serr := fs.Stat(proc, table)
		if serr != nil && table == "self/net/tcp6" {
			break // this kernel has no IPv6
		}
		err = errors.Join(err, serr)
		eachLine(proc, table, func(fields []string) (more bool) {
			// sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
			if len(fields) < 7 || fields[3] != inHandshake {
				return true
			}
			_, when, _ := strings.Cut(fields[5], ":")
			ticks, werr := strconv.ParseUint(when, 16, 32)
			retries, rerr := strconv.ParseUint(fields[6], 16, 32)
			if a, ok := parseTCPAddr(fields[1]); ok && werr == nil && rerr == nil {
				left := time.Duration(ticks) * time.Second / hertz
				at := port{uint16(a.Port), table == "self/net/tcp6"}
				all = append(all, request{port: at, retries: uint8(min(retries, 255)), due: left})
			}
			return true
		})
	}
	return all, err
}
