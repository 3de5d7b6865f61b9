package reuseport

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/net/bpf"
)

// AttachCPU makes the kernel send what CPU c receives to the member members[c] of the group that conn, a
// socket of the group, belongs to. conn is what a function of this package has returned, as it is, or anything else
// that has a descriptor by SyscallConn; without one the error matches [errors.ErrUnsupported]. Members are numbered in
// the order of listen(2) for TCP and bind(2) for UDP, which is the order of [Config.ListenGroup]; closing a member
// moves the last one into its place. What another CPU receives, or goes to a member that does not exist, is spread by
// hash. There can be at most 2047 CPUs.
//
// A classic BPF program does it (SO_ATTACH_REUSEPORT_CBPF, socket(7): UDP since Linux 4.5, TCP since 4.6). It
// needs no privilege, applies to the whole group, sockets that join later included, replaces a former program,
// and outlives conn. Multipath TCP listeners take none: see [ListenConfig]. For TCP it decides once per connection.
// The receiving CPU is the one that runs the kernel's receive path: where the network card's queue, or RPS, put the
// packet; on the loopback device, where the client's thread runs.
func AttachCPU(conn any, members map[int]int) error {
	program, err := cpuProgram(members)
	if err == nil {
		err = onConn(conn, func(fd int) error { return attach(fd, program) })
	}
	if err != nil {
		return fmt.Errorf("reuseport: attach program for %d CPUs: %w", len(members), err)
	}
	return nil
}

// maxCPUs is how many CPUs fit into a program, by two instructions each and two more (BPF_MAXINSNS, 4096).
const maxCPUs = 2047

// cpuProgram is a jump table: compare the CPU with each that has a member, in ascending order.
func cpuProgram(members map[int]int) ([]bpf.RawInstruction, error) {
	switch n := len(members); {
	case n == 0:
		return nil, errors.New("no CPU has a member")
	case n > maxCPUs:
		return nil, fmt.Errorf("a program has room for at most %d CPUs: leave the others to the hash", maxCPUs)
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

// Limit makes the kernel choose among the first n members of the group that conn, a socket of the group, belongs to, at
// random. What waits in the queues of the others stays there. Use it before members are closed: nothing new comes to
// them, and once their queues are empty they can be closed, the last first, without a loss. In the other direction,
// attached before members are added, it keeps connections from them until they are served; then [Detach] it.
//
// It is a program as [AttachCPU]'s is, and takes its place.
func Limit(conn any, n int) error {
	var program []bpf.RawInstruction
	err := errors.New("there must be at least one")
	if n > 0 {
		program, err = bpf.Assemble([]bpf.Instruction{
			bpf.LoadExtension{Num: bpf.ExtRand},
			bpf.ALUOpConstant{Op: bpf.ALUOpMod, Val: uint32(n)},
			bpf.RetA{},
		})
	}
	if err == nil {
		err = onConn(conn, func(fd int) error { return attach(fd, program) })
	}
	if err != nil {
		return fmt.Errorf("reuseport: limit to %d members: %w", n, err)
	}
	return nil
}

// AttachFlows makes the kernel choose among the first n members of the group that conn, a socket of the group, belongs
// to, by a hash of the sender's address and port: what one sender sends goes to one member for as long as n and seed
// stay. Nothing goes to members that are absent, by their numbers; what would be theirs is spread over the others, which
// keep what they have. So a member of which the process is gone can be left out, and come back, and no other flow moves.
// (Without a program the kernel does as much by a hash of its own, but leaves nobody out.) seed makes the choice one that
// senders cannot foresee; sockets of one service should keep theirs.
//
// It is a program as [AttachCPU]'s is, and takes its place. For TCP it decides once per connection. A sender of IPv6 whose
// packets have extension headers is known by its address, and by what stands where the port would be.
func AttachFlows(conn any, seed uint32, n int, absent ...int) error {
	program, err := flowProgram(seed, n, absent)
	if err == nil {
		err = onConn(conn, func(fd int) error { return attach(fd, program) })
	}
	if err != nil {
		return fmt.Errorf("reuseport: choose among %d members by flow: %w", n, err)
	}
	return nil
}

// maxFlowMembers is of how many members a program has room.
const maxFlowMembers = 1 << 10

func flowProgram(seed uint32, n int, absent []int) ([]bpf.RawInstruction, error) {
	if n < 1 || n > maxFlowMembers {
		return nil, fmt.Errorf("there must be between 1 and %d", maxFlowMembers)
	}
	var present []int
	for i := range n {
		if !slices.Contains(absent, i) {
			present = append(present, i)
		}
	}
	if len(present) == 0 {
		return nil, errors.New("all of them are absent")
	}
	const whole = 0 // scratch memory: the hash
	return bpf.Assemble(slices.Concat(hashOfSender(seed), []bpf.Instruction{
		bpf.StoreScratch{Src: bpf.RegA, N: whole},
		bpf.ALUOpConstant{Op: bpf.ALUOpMod, Val: uint32(n)},
	}, ifOneOf(present), []bpf.Instruction{
		bpf.LoadScratch{Dst: bpf.RegA, N: whole},
		bpf.ALUOpConstant{Op: bpf.ALUOpDiv, Val: uint32(n)}, // what the first choice has left of it
	}, oneOf(present)))
}

// hashOfSender loads a hash of the sender's address and port into register A.
func hashOfSender(seed uint32) []bpf.Instruction {
	const (
		scratch = 0
		v4Port  = 0 // the header of UDP or TCP, after that of IPv4, whose length X has
		v6Port  = 40
	)
	// A = (A * mix0) ^ what load has
	mixIn := func(load ...bpf.Instruction) []bpf.Instruction {
		return slices.Concat([]bpf.Instruction{
			bpf.ALUOpConstant{Op: bpf.ALUOpMul, Val: mix0},
			bpf.StoreScratch{Src: bpf.RegA, N: scratch},
		}, load, []bpf.Instruction{
			bpf.LoadScratch{Dst: bpf.RegX, N: scratch},
			bpf.ALUOpX{Op: bpf.ALUOpXor},
		})
	}
	v4 := slices.Concat(
		[]bpf.Instruction{bpf.LoadConstant{Dst: bpf.RegA, Val: seed}},
		mixIn(bpf.LoadAbsolute{Off: ipHeader + 12, Size: 4}),
		mixIn(bpf.LoadAbsolute{Off: ipHeader, Size: 1},
			bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0x0f}, bpf.ALUOpConstant{Op: bpf.ALUOpShiftLeft, Val: 2}, bpf.TAX{},
			bpf.LoadIndirect{Off: ipHeader + v4Port, Size: 2}),
	)
	v6 := []bpf.Instruction{bpf.LoadConstant{Dst: bpf.RegA, Val: seed}}
	for word := range uint32(4) {
		v6 = append(v6, mixIn(bpf.LoadAbsolute{Off: ipHeader + 8 + 4*word, Size: 4})...)
	}
	v6 = append(v6, mixIn(bpf.LoadAbsolute{Off: ipHeader + v6Port, Size: 2})...)
	v4 = append(v4, bpf.Jump{Skip: uint32(len(v6))})
	return slices.Concat(
		[]bpf.Instruction{
			bpf.LoadAbsolute{Off: ipHeader, Size: 1},
			bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xf0},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0x60, SkipTrue: uint8(len(v4))},
		}, v4, v6, mixing(),
	)
}

// ipHeader is what an offset counts from the header of IP (SKF_NET_OFF of linux/filter.h); a filter counts from that of
// UDP or TCP otherwise, and a program that chooses from what follows it.
const ipHeader = 0xfff00000

// Detach removes the program of the group that conn belongs to, classic or extended, so that the kernel
// spreads by hash again (SO_DETACH_REUSEPORT_BPF, Linux 5.3). Without a program the error is ENOENT.
func Detach(conn any) error {
	if err := onConn(conn, detach); err != nil {
		return fmt.Errorf("reuseport: detach program: %w", err)
	}
	return nil
}

// IncomingCPU returns the CPU on which the kernel received the latest packet of a connection, or of a packet
// socket (SO_INCOMING_CPU, socket(7), Linux 3.19).
func IncomingCPU(conn any) (int, error) {
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

// Quiesce makes the kernel ignore further attempts to connect to a TCP listener, while handshakes that are under
// way finish and the accept queue stays as it is. Whoever then accepts until the queue is empty can close the
// listener without resetting a connection. A client that is ignored tries again after about a second; after
// the close it is refused. A packet socket gets no more datagrams, and keeps those that are queued. [Resume] undoes it.
//
// It is also the way to close one listener of a group of which others stay, to which the kernel was told to send
// nothing (see [Limit]): in the instant of the close it may choose that one all the same (seen with IPv4 on 6.18), and
// a connection that comes just then would be reset.
//
// A socket filter does it (SO_ATTACH_FILTER, socket(7)), on the socket itself, so every process that shares the
// descriptor is concerned. Recent kernels (seen on 6.18) want CAP_NET_ADMIN for a filter on a TCP socket;
// without it the error matches [os.ErrPermission].
func Quiesce(listener any) error {
	err := onConn(listener, func(fd int) error {
		if isPacket(fd) {
			return deafen(fd)
		}
		return quiesceTCP(fd)
	})
	if err != nil {
		return fmt.Errorf("reuseport: quiesce: %w", err)
	}
	return nil
}

func quiesceTCP(fd int) error {
	program, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: tcpFlags, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: tcpSYN | tcpACK},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: tcpSYN, SkipFalse: 1},
		bpf.RetConstant{Val: 0},          // drop
		bpf.RetConstant{Val: ^uint32(0)}, // keep the whole packet
	})
	if err != nil {
		return err
	}
	return quiesce(fd, program)
}

// Resume undoes [Quiesce], whichever process did that: connections are let in again (SO_DETACH_FILTER, socket(7)).
// Without a filter on the socket the error is ENOENT. It takes no privilege, but where a process has locked the filter
// (SO_LOCK_FILTER), which nobody can undo, the error matches [os.ErrPermission].
func Resume(listener any) error {
	if err := onConn(listener, resume); err != nil {
		return fmt.Errorf("reuseport: resume: %w", err)
	}
	return nil
}

// The TCP header, which is what a filter on a TCP socket sees first.
const (
	tcpFlags = 13
	tcpSYN   = 0x02
	tcpACK   = 0x10
)
