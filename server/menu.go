package server

// MenuDimension is one step of the menu by which people find nodes: a tag key, in the
// organisation's own words.
type MenuDimension struct {
	Key string `json:"Key" hcl:"key,label"`
	// Title is what the step is called; the key unless given.
	Title string `json:"Title,omitempty" hcl:"title,optional"`
	// Missing is what nodes without the tag are found under.
	Missing string `json:"Missing,omitempty" hcl:"missing,optional"`
	// Order are values that come first.
	Order []string `json:"Order,omitempty" hcl:"order,optional"`
}

// TagRule says what a tag of nodes has to be like. It keeps nobody from anything:
// "sallyport doctor" tells of nodes that break it.
type TagRule struct {
	Key      string   `json:"Key" hcl:"key,label"`
	Required bool     `json:"Required,omitempty" hcl:"required,optional"`
	Values   []string `json:"Values,omitempty" hcl:"values,optional"`   // allowed; any unless given
	Pattern  string   `json:"Pattern,omitempty" hcl:"pattern,optional"` // a regular expression for the whole value
}
