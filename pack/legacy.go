package pack

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/gopherpack/gopherpack/pack/internal/handoff"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
	"github.com/gopherpack/gopherpack/upgrade"
)

// Before state and protocol became version 2, masters told their successors by these variables what they were. Neither
// version can take over from the other. A program that does not understand that it is only being tried out starts a
// second pack beside the one that runs. So each version refuses the other in its preflight, in the other's words.
//
// This file, and Config.PreflightEnv of package master, can go when nobody upgrades a pack of version 1, or goes back
// to one, any more: one release after the first of version 2.
const (
	rehearsalEnv  = "GOPHERPACK_REHEARSAL"  // "fd=3 parent=123 version=1 protocol=1", in a preflight
	successionEnv = "GOPHERPACK_SUCCESSION" // "version=1 pid=123 fd=7 previous=8", in a successor
)

const refusal = "it cannot take over from a master of an older version: stop the pack, and start the new executable"

// refuseLegacy ends this process if a master of version 1 wants to be replaced by it. Called before main begins, it
// comes before anything that only one pack may do.
func refuseLegacy() {
	asked, took := takeNumbers(rehearsalEnv), takeNumbers(successionEnv)
	switch {
	case upgrade.Asked() != nil || upgrade.Inherited() != nil:
	case asked["parent"] == os.Getppid() && asked["fd"] >= 3:
		answer := os.NewFile(uintptr(asked["fd"]), "answer")
		if json.NewEncoder(answer).Encode(handoff.Answer{Error: refusal}) != nil {
			os.Exit(1)
		}
		os.Exit(0)
	case took["pid"] == os.Getpid():
		// It was another executable that the preflight has tried, such as a script that starts the newest. The workers
		// drain when this process ends.
		fmt.Fprintln(os.Stderr, "pack:", refusal)
		os.Exit(1)
	}
}

// takeNumbers returns the numbers in an environment variable, which programs that this one starts do not get.
func takeNumbers(variable string) map[string]int {
	numbers := map[string]int{}
	for word := range strings.FieldsSeq(os.Getenv(variable)) {
		name, value, _ := strings.Cut(word, "=")
		numbers[name], _ = strconv.Atoi(value)
	}
	os.Unsetenv(variable)
	return numbers
}

// legacyPreflight is what makes an executable of version 1 answer a preflight. Its answer, JSON on the descriptor that
// package upgrade passes on, is an error for package upgrade, which quotes it.
func legacyPreflight() string {
	const value = "=fd=3 parent=%d version=%d protocol=%d"
	return fmt.Sprintf(rehearsalEnv+value, os.Getpid(), handoff.Version, wire.Version)
}
