//go:build !linux

package affinity

import "errors"

func get(int) (Set, error)          { return Set{}, errors.ErrUnsupported }
func assign(int, Set) error         { return errors.ErrUnsupported }
func allowed(int) (Set, error)      { return Set{}, errors.ErrUnsupported }
func bindProcess(int, Set) error    { return errors.ErrUnsupported }
func threads(int) ([]Thread, error) { return nil, errors.ErrUnsupported }

const haveSysfs = false
