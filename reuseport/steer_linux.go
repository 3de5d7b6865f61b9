package reuseport

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const spreads = true

func attach(fd int, program []bpf.RawInstruction) error {
	return setProgram(fd, unix.SO_ATTACH_REUSEPORT_CBPF, "SO_ATTACH_REUSEPORT_CBPF", program)
}

func quiesce(fd int, program []bpf.RawInstruction) error {
	return setProgram(fd, unix.SO_ATTACH_FILTER, "SO_ATTACH_FILTER", program)
}

func isPacket(fd int) bool {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	return err == nil && kind == unix.SOCK_DGRAM
}

// deafen has a socket drop what comes to it. It takes no privilege for UDP.
func deafen(fd int) error { return quiesce(fd, []bpf.RawInstruction{{Op: 0x06, K: 0}}) } // BPF_RET|BPF_K

// hear lets a deaf socket have what its peer sends.
func hear(fd int, peer *net.UDPAddr) error {
	program, err := ofPeer(peer)
	if err != nil {
		return err
	}
	return quiesce(fd, program)
}

func resume(fd int) error {
	return explain(fd, "SO_DETACH_FILTER", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0))
}

func setProgram(fd, option int, name string, program []bpf.RawInstruction) error {
	filter := make([]unix.SockFilter, len(program))
	for i, ins := range program {
		filter[i] = unix.SockFilter{Code: ins.Op, Jt: ins.Jt, Jf: ins.Jf, K: ins.K}
	}
	fprog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	return explain(fd, name, unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, option, &fprog))
}

func detach(fd int) error {
	return explain(fd, "SO_DETACH_REUSEPORT_BPF", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_REUSEPORT_BPF, 0))
}

// explain says what to do about the error that users meet most.
func explain(fd int, option string, err error) error {
	if err == nil {
		return nil
	}
	err = os.NewSyscallError("setsockopt "+option, err)
	if protocol, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); protocol == unix.IPPROTO_MPTCP {
		return fmt.Errorf("%w (a Multipath TCP listener, as package net opens since Go 1.24, takes no program: "+
			"open it by Listen or ListenConfig of reuseport)", err)
	}
	return err
}

func incomingCPU(fd int) (int, error) {
	cpu, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_INCOMING_CPU)
	return cpu, os.NewSyscallError("getsockopt SO_INCOMING_CPU", err)
}
