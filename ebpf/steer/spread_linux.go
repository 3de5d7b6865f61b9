package steer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// receivesSpread reports why it cannot be counted on that every worker's CPUs receive something. They do if some
// network interface that is up, other than the loopback, has as many receive queues as there are workers, or spreads
// what it receives over as many CPUs (RPS): /sys/class/net/*/queues/rx-*/rps_cpus, see scaling.rst of the kernel.
func receivesSpread(workers []worker) error {
	interfaces, err := filepath.Glob("/sys/class/net/*")
	if err != nil || len(interfaces) == 0 {
		return errors.New("there are no network interfaces to look at")
	}
	most := 0
	for _, dir := range interfaces {
		state, _ := os.ReadFile(dir + "/operstate")
		if strings.TrimSpace(string(state)) != "up" {
			continue
		}
		queues, _ := filepath.Glob(dir + "/queues/rx-*")
		most = max(most, len(queues))
		for _, queue := range queues {
			mask, _ := os.ReadFile(queue + "/rps_cpus")
			most = max(most, bitsInMask(string(mask)))
		}
	}
	if most < len(workers) {
		return fmt.Errorf("the network interfaces spread what they receive over %d CPUs at most, for %d workers", most, len(workers))
	}
	return nil
}

// bitsInMask counts the bits in a mask as the kernel writes it, such as "ff,ffffffff".
func bitsInMask(mask string) (n int) {
	for word := range strings.SplitSeq(strings.TrimSpace(mask), ",") {
		v, _ := strconv.ParseUint(word, 16, 64)
		for ; v != 0; v &= v - 1 {
			n++
		}
	}
	return n
}

// preferIncoming has the kernel prefer, for what a CPU received, the socket of the worker whose first CPU that is
// (SO_INCOMING_CPU, socket(7); kernels before 6.2, 6.1.x stable ones apart, ignore it).
func preferIncoming(sockets []syscall.Conn, workers []worker) error {
	for id, socket := range sockets {
		cpu, ok := workers[id].cpus.First()
		if !ok {
			continue
		}
		err := withDescriptor(socket, func(fd int) error {
			return os.NewSyscallError("setsockopt SO_INCOMING_CPU", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_INCOMING_CPU, cpu))
		})
		if err != nil {
			return err
		}
	}
	return nil
}
