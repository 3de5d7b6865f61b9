package reuseport

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/net/bpf"
)

// QUICIDLen is how many bytes the connection IDs have that [QUICID] returns: fewer than 8, which a client's own first
// choice has at least (RFC 9000, 7.2), so that packets of new connections can be told from others.
const QUICIDLen = 7

// QUICID returns a new connection ID of a QUIC server, by which [AttachQUIC] finds its member of a group. It is random
// but for the number of the member, less than 65536, which is not to be seen in it without the key. That is for the sake
// of those who are not to know which connections are of one client, as with QUIC-LB, and no encryption: whoever has many
// IDs can find the key.
func QUICID(key uint32, member int) []byte {
	id := make([]byte, QUICIDLen)
	rand.Read(id)
	binary.BigEndian.PutUint16(id[4:], uint16(member)^uint16(mix(binary.BigEndian.Uint32(id)^key)))
	return id
}

// Odd numbers that spread bits.
const (
	mix0 = 0x9e3779b1
	mix1 = 0x85ebca6b
	mix2 = 0xc2b2ae35
)

// mix spreads the bits of a word. Instructions that do the same are what mixing returns.
func mix(x uint32) uint32 {
	x *= mix0
	x ^= x >> 16
	x *= mix1
	x ^= x >> 13
	x *= mix2
	return x ^ x>>16
}

// mixing does to register A what mix does, and changes X.
func mixing() (all []bpf.Instruction) {
	for _, step := range []struct{ factor, shift uint32 }{{mix0, 16}, {mix1, 13}, {mix2, 16}} {
		all = append(all, bpf.ALUOpConstant{Op: bpf.ALUOpMul, Val: step.factor},
			bpf.TAX{}, bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: step.shift}, bpf.ALUOpX{Op: bpf.ALUOpXor})
	}
	return all
}

// AttachQUIC has the kernel send packets of QUIC to the member of a group that their connection is of, wherever the
// client sends them from: the one in their connection ID, if [QUICID] has made that with this key, and the member is one
// of known. All else goes to one of fresh by a hash of the sender's address and port: new connections, and those whose
// member is not known any more, to which a server says so by a stateless reset, if it has the key of the one before (RFC
// 9000, 10.3). conn is any socket of the group. Members are numbered as for [AttachCPU]; as long as their numbers are to
// stay, none can be closed.
//
// So servers can take turns, each with a member of its own: that of the new one becomes fresh, and that of the old one
// stays known until its connections have ended. The old one should go on taking new connections for a moment, which have
// sent it their first packet, and not been answered yet.
//
// It is a program as AttachCPU's is, which takes no privilege, and it takes the place of another.
func AttachQUIC(conn any, key uint32, fresh, known []int) error {
	program, err := quicProgram(key, fresh, known)
	if err == nil {
		err = onConn(conn, func(fd int) error { return attach(fd, program) })
	}
	if err != nil {
		return fmt.Errorf("reuseport: choose by connection ID: %w", err)
	}
	return nil
}

func quicProgram(key uint32, fresh, known []int) ([]bpf.RawInstruction, error) {
	if len(fresh) == 0 {
		return nil, errors.New("there is no member for new connections")
	}
	for _, member := range slices.Concat(fresh, known) {
		if member < 0 || member > 0xffff {
			return nil, fmt.Errorf("there cannot be a member %d", member)
		}
	}
	const (
		long     = 0x80 // a bit of the first byte
		lengthAt = 5    // in a long header, after the version; the ID follows
		atLeast  = lengthAt + 1 + QUICIDLen
	)
	byLong := slices.Concat(memberAt(lengthAt+1, key), ifOneOf(known))
	byShort := slices.Concat(memberAt(1, key), ifOneOf(known))
	// What comes before choosing one of fresh, each part of which goes on to that if it has not found a member.
	toFresh := func(skipped int) bpf.Instruction { return bpf.Jump{Skip: uint32(skipped)} }
	byLong = append(byLong, toFresh(len(byShort)))
	ofLong := slices.Concat([]bpf.Instruction{
		bpf.LoadAbsolute{Off: lengthAt, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: QUICIDLen, SkipTrue: 1},
		toFresh(len(byLong) + len(byShort)), // a client's own choice
	}, byLong)
	ofBoth := slices.Concat([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 0, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: long, SkipTrue: 1},
		bpf.Jump{Skip: uint32(len(ofLong))},
	}, ofLong, byShort)
	return bpf.Assemble(slices.Concat([]bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtLen},
		bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: atLeast, SkipTrue: 1},
		toFresh(len(ofBoth)),
	}, ofBoth, hashOfSender(key), oneOf(fresh)))
}

// memberAt loads the member of a connection ID that begins at an offset.
func memberAt(offset, key uint32) []bpf.Instruction {
	const scratch = 0
	return slices.Concat([]bpf.Instruction{
		bpf.LoadAbsolute{Off: offset, Size: 4},
		bpf.ALUOpConstant{Op: bpf.ALUOpXor, Val: key},
	}, mixing(), []bpf.Instruction{
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xffff},
		bpf.StoreScratch{Src: bpf.RegA, N: scratch},
		bpf.LoadAbsolute{Off: offset + 4, Size: 2},
		bpf.LoadScratch{Dst: bpf.RegX, N: scratch},
		bpf.ALUOpX{Op: bpf.ALUOpXor},
	})
}

// run is numbers that follow each other.
type run struct{ first, last int }

func runsOf(all []int) (runs []run) {
	for _, n := range slices.Compact(slices.Sorted(slices.Values(all))) {
		if k := len(runs) - 1; k >= 0 && runs[k].last == n-1 {
			runs[k].last = n
		} else {
			runs = append(runs, run{n, n})
		}
	}
	return runs
}

// ifOneOf returns register A if it is one of some numbers, and goes on otherwise.
func ifOneOf(all []int) (program []bpf.Instruction) {
	for _, r := range runsOf(all) {
		program = append(program,
			bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: uint32(r.first), SkipFalse: 2},
			bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: uint32(r.last), SkipTrue: 1},
			bpf.RetA{})
	}
	return program
}

// oneOf returns one of some numbers, by register A.
func oneOf(all []int) []bpf.Instruction {
	runs := runsOf(all)
	count := 0
	for _, r := range runs {
		count += r.last - r.first + 1
	}
	program := []bpf.Instruction{bpf.ALUOpConstant{Op: bpf.ALUOpMod, Val: uint32(count)}}
	for _, r := range runs {
		// Those before have left A as it was; it is to be less than so many.
		n := uint32(r.last - r.first + 1)
		program = append(program,
			bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: n, SkipTrue: 2},
			bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: uint32(r.first)},
			bpf.RetA{},
			bpf.ALUOpConstant{Op: bpf.ALUOpSub, Val: n})
	}
	return append(program, bpf.RetConstant{Val: uint32(runs[0].first)})
}
