package affinity_test

import (
	"fmt"
	"os/exec"

	"github.com/gopherpack/gopherpack/affinity"
)

// Start a program that may run on CPU 0 alone, whatever threads it makes.
func ExampleDo() {
	cmd := exec.Command("nproc")
	if err := affinity.Do(affinity.Of(0), cmd.Start); err != nil {
		fmt.Println(err)
		return
	}
	if err := cmd.Wait(); err != nil {
		fmt.Println(err)
	}
}

func ExampleSet() {
	s, err := affinity.Parse("0-3,8")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(s.Len(), s.Contains(8), s.Minus(affinity.Of(1)))
	// Output: 5 true 0,2-3,8
}
