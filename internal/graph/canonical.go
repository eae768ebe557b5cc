package graph

import (
	"encoding/binary"
	"fmt"
	"hash"
	"reflect"
	"time"
)

// Hash adds all of v to h, such that values that differ give other bytes. Every
// part has its length before it and every struct its type, and strings count by
// their bytes, which in JSON would have to be UTF-8. Fields that JSON leaves out
// ("-") do not count.
func Hash(h hash.Hash, v any) error {
	return addValue(h, reflect.ValueOf(v))
}

func addValue(h hash.Hash, v reflect.Value) error {
	switch v.Kind() {
	case reflect.Invalid:
		addString(h, "nil")
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			addString(h, "nil")
			return nil
		}
		addString(h, "some")
		return addValue(h, v.Elem())
	case reflect.Struct:
		return addStruct(h, v)
	case reflect.Slice, reflect.Array:
		addNumber(h, uint64(v.Len()))
		for i := range v.Len() {
			if err := addValue(h, v.Index(i)); err != nil {
				return err
			}
		}
	case reflect.String:
		addString(h, v.String())
	case reflect.Bool:
		n := uint64(0)
		if v.Bool() {
			n = 1
		}
		addNumber(h, n)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		addNumber(h, uint64(v.Int()))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		addNumber(h, v.Uint())
	default:
		return fmt.Errorf("a %s cannot be part of a key", v.Type())
	}
	return nil
}

func addStruct(h hash.Hash, v reflect.Value) error {
	if t, ok := v.Interface().(time.Time); ok {
		addString(h, t.UTC().Format(time.RFC3339Nano))
		return nil
	}
	addString(h, v.Type().String())
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if field.Tag.Get("json") == "-" {
			continue
		}
		addString(h, field.Name)
		if err := addValue(h, v.Field(i)); err != nil {
			return err
		}
	}
	return nil
}

func addString(h hash.Hash, s string) {
	addNumber(h, uint64(len(s)))
	h.Write([]byte(s))
}

func addNumber(h hash.Hash, n uint64) {
	h.Write(binary.BigEndian.AppendUint64(nil, n))
}
