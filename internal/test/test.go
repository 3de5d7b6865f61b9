// Package test is what the tests of several packages need: here, how much they are to do.
package test

import (
	"flag"
	"os"
)

// Full reports whether tests are to try all that they know, as .ci/run has them do, with PACK_TEST_FULL=1 in the
// environment: every step of an upgrade at which a process may be killed, dozens of changes under clients that never
// pause, thousands of connections. Else they try what stands for the rest, and are done in a minute.
func Full() bool { return os.Getenv("PACK_TEST_FULL") == "1" }

// Some returns all the cases of a test if it is to try all that it knows, else the first n, which stand for the rest.
func Some[T any](n int, cases []T) []T {
	if Full() {
		return cases
	}
	return cases[:min(n, len(cases))]
}

// Times returns how often a test is to do what it does again and again.
func Times(few, many int) int {
	if Full() {
		return many
	}
	return few
}

// Parallel lets n parallel tests run at once, unless go test was told how many. It is for the TestMain of tests that
// wait, rather than compute.
func Parallel(n string) {
	flag.Parse()
	told := false
	flag.Visit(func(f *flag.Flag) { told = told || f.Name == "test.parallel" })
	if !told {
		if err := flag.Set("test.parallel", n); err != nil {
			panic(err)
		}
	}
}
