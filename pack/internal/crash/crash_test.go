package crash

import (
	"strings"
	"testing"
)

func TestReason(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", ""},
		{strings.Repeat("\x00", size), ""},
		{"panic: boom\n\ngoroutine 1 [running]:\nmain.main()\n", "boom"},
		{"panic: boom [recovered, repanicked]\n", "boom [recovered, repanicked]"},
		{"panic: first\nsecond\n", "first"},
		{"panic: cut" + strings.Repeat("\x00", 100), "cut"},
		{"panic: \n", ""},
		{"fatal error: all goroutines are asleep - deadlock!\n", "fatal error: all goroutines are asleep - deadlock!"},
		{"runtime: goroutine stack exceeds 1000000000-byte limit\nfatal error: stack overflow\n",
			"fatal error: stack overflow"},
		{"SIGSEGV: segmentation violation\nPC=0x1\n", "SIGSEGV: segmentation violation"},
		{"panic: " + strings.Repeat("x", 2*maxReason) + "\n", strings.Repeat("x", maxReason)},
		{"panic: \xff\n", "?"},
		{"goroutine 1 [running]:\n", ""},
	} {
		if got := reason(tt.text); got != tt.want {
			t.Errorf("reason of %.50q is %q; want %q", tt.text, got, tt.want)
		}
	}
	if got := Reason(nil); got != "" {
		t.Errorf("of no file it is %q", got)
	}
}
