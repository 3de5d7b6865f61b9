package sockets

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// holders returns the processes that listen on an address that is in use, as far as this process may see them.
func holders(e wire.Endpoint, inUse error) []holder {
	return holdersIn(os.DirFS("/proc").(fs.ReadLinkFS), e, inUse)
}

func holdersIn(proc fs.ReadLinkFS, e wire.Endpoint, inUse error) []holder {
	inodes := map[string]bool{}
	if e.Network == "unix" {
		listenUnixInodes(proc, e.Address, inodes)
	} else if op, ok := errors.AsType[*net.OpError](inUse); ok {
		inetInodes(proc, op, true, inodes)
	}
	return whoHas(proc, inodes)
}

// connected returns the processes of which a connection has an address that is in use: the kernel gives connections any
// port that is free (ip(7), ip_local_port_range).
func connected(inUse error) []holder { return connectedIn(os.DirFS("/proc").(fs.ReadLinkFS), inUse) }

func connectedIn(proc fs.ReadLinkFS, inUse error) []holder {
	inodes := map[string]bool{}
	if op, ok := errors.AsType[*net.OpError](inUse); ok && strings.HasPrefix(op.Net, "tcp") {
		inetInodes(proc, op, false, inodes)
	}
	return whoHas(proc, inodes)
}

// whoHas returns the processes that have one of some sockets open.
func whoHas(proc fs.ReadLinkFS, inodes map[string]bool) (all []holder) {
	if len(inodes) == 0 {
		return nil
	}
	processes, _ := fs.Glob(proc, "[0-9]*")
	for _, name := range processes {
		pid, err := strconv.Atoi(name)
		if err != nil || !hasSocket(proc, name, inodes) {
			continue
		}
		h := holder{pid: pid, orphan: isOrphan(proc, name)}
		if comm, err := fs.ReadFile(proc, name+"/comm"); err == nil {
			h.name = strings.TrimSpace(string(comm))
		}
		all = append(all, h)
	}
	slices.SortFunc(all, func(a, b holder) int { return a.pid - b.pid })
	return all
}

// hasSocket reports whether a process has one of some sockets open.
func hasSocket(proc fs.ReadLinkFS, pid string, inodes map[string]bool) bool {
	descriptors, _ := fs.ReadDir(proc, pid+"/fd") // others' cannot be read
	for _, d := range descriptors {
		target, _ := proc.ReadLink(pid + "/fd/" + d.Name())
		if inode, ok := strings.CutPrefix(target, "socket:["); ok && inodes[strings.TrimSuffix(inode, "]")] {
			return true
		}
	}
	return false
}

// isOrphan reports whether a process was started as a worker by another than its parent now. What its environment was
// tells that, see package procgroup.
func isOrphan(proc fs.FS, pid string) bool {
	environment, err := fs.ReadFile(proc, pid+"/environ")
	if err != nil {
		return false
	}
	stat, err := fs.ReadFile(proc, pid+"/stat")
	if err != nil {
		return false
	}
	var state, parent string // "123 (name) R 1 ...", where the name may have spaces and brackets
	fmt.Sscan(string(stat[bytes.LastIndexByte(stat, ')')+1:]), &state, &parent)
	for variable := range bytes.SplitSeq(environment, []byte{0}) {
		if value, ok := bytes.CutPrefix(variable, []byte("PROCGROUP_LIFELINE=")); ok {
			_, master, ok := strings.Cut(string(value), ",")
			return ok && parent != "" && master != parent
		}
	}
	return false
}

// inetInodes finds the sockets that listen on what an error of a bind was about, or the connections that have that as
// their address here (proc_net_tcp(5)). Zones are not told.
func inetInodes(proc fs.FS, op *net.OpError, listen bool, inodes map[string]bool) {
	given := inetAddr(op.Addr)
	if given == nil {
		return
	}
	wanted := &net.TCPAddr{IP: given.IP, Port: given.Port}
	listening, table := "0A", "self/net/"+op.Addr.Network()
	if op.Addr.Network() == "udp" {
		listening = "07" // not connected
	}
	for _, table := range []string{table, table + "6"} {
		eachLine(proc, table, func(fields []string) (more bool) {
			// sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
			switch {
			case len(fields) < 10 || listen && fields[3] != listening:
				return fields[0] == "sl" || listening != "0A" // those that listen come first, and the others can be many
			case !listen && fields[3] == listening:
				return true
			}
			a, ok := parseTCPAddr(fields[1])
			if !ok || a.Port != wanted.Port {
				return true
			}
			x, y := scopeOf(op.Addr.Network(), a), scopeOf(op.Net, wanted)
			if x.covers(y) || y.covers(x) {
				inodes[fields[9]] = true
			}
			return true
		})
	}
}

// parseTCPAddr reads an address such as 0100007F:1F90: words of the machine's own order, and the port.
func parseTCPAddr(text string) (*net.TCPAddr, bool) {
	words, port, _ := strings.Cut(text, ":")
	raw, err := hex.DecodeString(words)
	n, perr := strconv.ParseUint(port, 16, 16)
	if err != nil || perr != nil || len(raw) != net.IPv4len && len(raw) != net.IPv6len {
		return nil, false
	}
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	return &net.TCPAddr{IP: raw, Port: int(n)}, true
}

// listenUnixInodes finds the sockets that listen at a path (proc_net_unix(5)).
func listenUnixInodes(proc fs.FS, path string, inodes map[string]bool) {
	const accepts = 1 << 16 // __SO_ACCEPTCON
	absolute, _ := filepath.Abs(path)
	eachLine(proc, "self/net/unix", func(fields []string) (more bool) {
		// Num RefCount Protocol Flags Type St Inode Path
		if len(fields) < 8 {
			return true
		}
		flags, err := strconv.ParseUint(fields[3], 16, 64)
		bound := strings.Join(fields[7:], " ")
		if err == nil && flags&accepts != 0 && (bound == abstractName(path) || bound == path || bound == absolute) {
			inodes[fields[6]] = true
		}
		return true
	})
}

// eachLine calls do with the fields of each line that has some, as long as it wants more.
func eachLine(proc fs.FS, table string, do func(fields []string) (more bool)) {
	f, err := proc.Open(table)
	if err != nil {
		return
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 0 && !do(fields) {
			return
		}
	}
}
