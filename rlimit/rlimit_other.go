//go:build !linux && !darwin && !freebsd

package rlimit

import "errors"

var numbers map[Resource]int

func get(Resource) (Limit, error) { return Limit{}, errors.ErrUnsupported }
func set(Resource, Limit) error   { return errors.ErrUnsupported }
