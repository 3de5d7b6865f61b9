package reuseport

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const spreads = true

func attach(fd int, program []bpf.RawInstruction) error {
	err := setProgram(fd, unix.SO_ATTACH_REUSEPORT_CBPF, "SO_ATTACH_REUSEPORT_CBPF", program)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("%w (a Multipath TCP listener, which net makes since Go 1.24, takes no program: "+
			"open it by Listen or ListenConfig of this package)", err)
	}
	return err
}

func quiesce(fd int, program []bpf.RawInstruction) error {
	return setProgram(fd, unix.SO_ATTACH_FILTER, "SO_ATTACH_FILTER", program)
}

// deafen has a socket drop what comes to it. It takes no privilege for UDP.
func deafen(fd int) error { return quiesce(fd, []bpf.RawInstruction{{Op: 0x06, K: 0}}) } // BPF_RET|BPF_K

// hear undoes deafen.
func hear(fd int) error { return resume(fd) }

func resume(fd int) error {
	return os.NewSyscallError("setsockopt SO_DETACH_FILTER", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0))
}

func setProgram(fd, option int, name string, program []bpf.RawInstruction) error {
	filter := make([]unix.SockFilter, len(program))
	for i, ins := range program {
		filter[i] = unix.SockFilter{Code: ins.Op, Jt: ins.Jt, Jf: ins.Jf, K: ins.K}
	}
	fprog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	return os.NewSyscallError("setsockopt "+name, unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, option, &fprog))
}

func detach(fd int) error {
	return os.NewSyscallError("setsockopt SO_DETACH_REUSEPORT_BPF",
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_REUSEPORT_BPF, 0))
}

func incomingCPU(fd int) (int, error) {
	cpu, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_INCOMING_CPU)
	return cpu, os.NewSyscallError("getsockopt SO_INCOMING_CPU", err)
}
