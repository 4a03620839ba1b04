package server

func ownOperations() []*Operation { return nil }
