package reuseport

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"

	"golang.org/x/net/bpf"
)

// AttachCPU makes the kernel send what CPU c receives to the member members[c] of the group that conn, a
// socket of the group, belongs to. Members are numbered in the order of listen(2) for TCP and bind(2) for UDP,
// which is the order of [Config.ListenGroup]; closing a member moves the last one into its place. What another
// CPU receives, or goes to a member that does not exist, is spread by hash.
//
// A classic BPF program does it (SO_ATTACH_REUSEPORT_CBPF, socket(7): UDP since Linux 4.5, TCP since 4.6). It
// needs no privilege, applies to the whole group, sockets that join later included, replaces a former program,
// and outlives conn. For TCP it decides once per connection. The receiving CPU is the one that runs the
// kernel's receive path: where the network card's queue, or RPS, put the packet; on the loopback device, where
// the client's thread runs.
func AttachCPU(conn syscall.Conn, members map[int]int) error {
	program, err := cpuProgram(members)
	if err == nil {
		err = onConn(conn, func(fd int) error { return attach(fd, program) })
	}
	if err != nil {
		return fmt.Errorf("reuseport: attach program for %d CPUs: %w", len(members), err)
	}
	return nil
}

// cpuProgram is a jump table: compare the CPU with each that has a member, in ascending order.
func cpuProgram(members map[int]int) ([]bpf.RawInstruction, error) {
	if len(members) == 0 {
		return nil, errors.New("no CPU has a member")
	}
	program := []bpf.Instruction{bpf.LoadExtension{Num: bpf.ExtCPUID}}
	for _, cpu := range slices.Sorted(maps.Keys(members)) {
		if cpu < 0 || members[cpu] < 0 {
			return nil, fmt.Errorf("CPU %d to member %d: a number is negative", cpu, members[cpu])
		}
		program = append(program,
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(cpu), SkipTrue: 1},
			bpf.RetConstant{Val: uint32(members[cpu])})
	}
	// A number that no member has sends the rest to the hash.
	return bpf.Assemble(append(program, bpf.RetConstant{Val: ^uint32(0)}))
}

// Detach removes the program of the group that conn belongs to, classic or extended, so that the kernel
// spreads by hash again (SO_DETACH_REUSEPORT_BPF, Linux 5.3). Without a program the error is ENOENT.
func Detach(conn syscall.Conn) error {
	if err := onConn(conn, detach); err != nil {
		return fmt.Errorf("reuseport: detach program: %w", err)
	}
	return nil
}

// IncomingCPU returns the CPU on which the kernel received the latest packet of a connection, or of a packet
// socket (SO_INCOMING_CPU, socket(7), Linux 3.19).
func IncomingCPU(conn syscall.Conn) (int, error) {
	cpu := -1
	err := onConn(conn, func(fd int) (err error) {
		cpu, err = incomingCPU(fd)
		return err
	})
	if err != nil {
		return -1, fmt.Errorf("reuseport: incoming CPU: %w", err)
	}
	return cpu, nil
}
