package main

import (
	"encoding/json"
	"io"
	"reflect"
)

// writeIndented writes what a verb prints with --json. A list without members is an empty one and not null, which programs cannot go
// over.
func writeIndented(out io.Writer, v any) error {
	whole := reflect.New(reflect.TypeOf(v)).Elem()
	whole.Set(reflect.ValueOf(v))
	fillLists(whole)
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(whole.Interface())
}

// fillLists puts empty lists in the place of those that are nil, as far as encoding/json looks.
func fillLists(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			fillLists(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Field(i); f.CanSet() || v.Type().Field(i).Anonymous { // exported, or with members that are
				fillLists(f)
			}
		}
	case reflect.Slice:
		if v.IsNil() && v.CanSet() && v.Type().Elem().Kind() != reflect.Uint8 { // bytes are a string in JSON
			v.Set(reflect.MakeSlice(v.Type(), 0, 0))
		}
		for i := range v.Len() {
			fillLists(v.Index(i))
		}
	}
}
