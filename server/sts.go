package server

func stsOperations() []*Operation { return nil }
