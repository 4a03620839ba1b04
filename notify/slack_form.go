package notify

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/slack-go/slack"

	"sallyport.dev/flow"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
)

// What Slack allows in forms.
const (
	maxOptions    = 100
	maxOptionText = 75
	maxOption     = 150 // characters of a value
	maxLabel      = 200
	maxInput      = 1000 // of one value: what package flow takes
	maxInputs     = 3000 // of several
	maxTitle      = 24
	maxFormBlocks = 90
)

// modal begins a view.
func modal(callback, title, submit string, blocks ...slack.Block) slack.ModalViewRequest {
	v := slack.ModalViewRequest{
		Type: slack.VTModal, CallbackID: callback, Title: plain(title, maxTitle), Close: plain("Close", maxTitle),
		Blocks: slack.Blocks{BlockSet: blocks},
	}
	if submit != "" {
		v.Submit = plain(submit, maxTitle)
	}
	return v
}

// noteView only says something; the text is Slack's mrkdwn.
func noteView(title, text string) slack.ModalViewRequest {
	body := &slack.TextBlockObject{Type: slack.MarkdownType, Text: clip(text, maxSlackField), Verbatim: true}
	return modal("sallyport_note", title, "", slack.NewSectionBlock(body, nil, nil))
}

// openForm opens the form of a flow, or the choice of flows where none is named.
func (a *slackApp) openForm(ctx context.Context, u slackUser, p identity.Principal, name, trigger string, to answerTo) {
	offers, err := a.config.Access.Offers(ctx, p, channelSlack)
	if err != nil {
		a.whisper(ctx, to, a.words(err))
		return
	}
	offer, found := findOffer(offers, name)
	switch {
	case len(offers) == 0:
		a.whisper(ctx, to, "There is no flow that you may ask in Slack.")
	case found:
		a.open(ctx, trigger, formView(offer), to)
	case name != "":
		a.whisper(ctx, to, "There is no flow "+slackInline(line(name, maxName))+" that you may ask in Slack. There are: "+slackInline(offerNames(offers))+".")
	default:
		a.open(ctx, trigger, flowsView(offers), to)
	}
}

// findOffer finds a flow by its name; the only one where none is named.
func findOffer(offers []grant.Offer, name string) (grant.Offer, bool) {
	for _, o := range offers {
		if name != "" && strings.EqualFold(o.Flow.Name, name) {
			return o, true
		}
	}
	if name == "" && len(offers) == 1 {
		return offers[0], true
	}
	return grant.Offer{}, false
}

func offerNames(offers []grant.Offer) string {
	var names []string
	for _, o := range offers {
		names = append(names, o.Flow.Name)
	}
	return strings.Join(lines(names), ", ")
}

// flowsView lets choose a flow.
func flowsView(offers []grant.Offer) slack.ModalViewRequest {
	var options []*slack.OptionBlockObject
	for i, o := range offers {
		if i == maxOptions {
			break
		}
		options = append(options, option(o.Flow.Name, cmp.Or(o.Flow.Label, o.Flow.Name)))
	}
	choice := slack.NewOptionsSelectBlockElement(slack.OptTypeStatic, nil, elementID, options...)
	return modal(viewFlows, "Ask for access", "Next", slack.NewInputBlock(blockFlow, plain("What do you need?", maxLabel), nil, choice))
}

func option(value, text string) *slack.OptionBlockObject {
	return slack.NewOptionBlockObject(clip(value, maxOption), plain(line(text, maxOptionText), maxOptionText), nil)
}

// choseFlow goes on from the choice of flows to the form.
func (a *slackApp) choseFlow(ctx context.Context, p identity.Principal, v slack.View) reply {
	offers, err := a.config.Access.Offers(ctx, p, channelSlack)
	if err != nil {
		return viewErrors(blockFlow, a.words(err))
	}
	offer, found := findOffer(offers, inputText(v, blockFlow))
	if !found {
		return viewErrors(blockFlow, "You may not ask this flow any more.")
	}
	return slack.NewUpdateViewSubmissionResponse(ptr(formView(offer)))
}

// formView is the form of a flow.
func formView(o grant.Offer) slack.ModalViewRequest {
	f := o.Flow
	var blocks []slack.Block
	if text := line(f.Description, 500); text != "" {
		blocks = append(blocks, slack.NewSectionBlock(plain(text, maxSlackField), nil, nil))
	}
	if o.Problem != "" {
		blocks = append(blocks, slack.NewSectionBlock(plain("The flow's code has a problem: "+line(o.Problem, 300), maxSlackField), nil, nil))
	}
	if len(f.Targets) > 1 && len(f.Targets) <= maxOptions {
		blocks = append(blocks, targetsInput(f))
	}
	for _, field := range o.Fields {
		if len(blocks) < maxFormBlocks {
			blocks = append(blocks, fieldInput(field))
		}
	}
	if slices.ContainsFunc(f.Targets, func(t flow.Target) bool { return t.Kind == flow.TargetNodes }) {
		hint := plain("Ids of nodes, separated by spaces; leave it empty for all that the flow gives.", maxLabel)
		blocks = append(blocks, slack.NewInputBlock(blockNodes, plain("Nodes", maxLabel), hint, textInput("", false, maxInputs)).WithOptional(true))
	}
	v := modal(viewForm, cmp.Or(line(f.Label, maxName), f.Name), "Ask", blocks...)
	v.PrivateMetadata = f.Name
	return v
}

func targetsInput(f *flow.Flow) slack.Block {
	var options []*slack.OptionBlockObject
	for _, t := range f.Targets {
		options = append(options, option(t.Name, cmp.Or(t.Label, t.Name)))
	}
	choice := slack.NewOptionsMultiSelectBlockElement(slack.MultiOptTypeStatic, nil, elementID, options...)
	hint := plain("All of them, unless you choose.", maxLabel)
	return slack.NewInputBlock(blockTargets, plain("Access", maxLabel), hint, choice).WithOptional(true)
}

// fieldInput is the input of a field.
func fieldInput(f flow.Field) slack.Block {
	var hint *slack.TextBlockObject
	if text := line(f.Help, 300); text != "" {
		hint = plain(text, maxLabel)
	}
	name := plain(line(cmp.Or(f.Label, f.Name), maxName), maxLabel)
	return slack.NewInputBlock(blockField+f.Name, name, hint, fieldElement(f)).WithOptional(!f.Required)
}

func fieldElement(f flow.Field) slack.BlockElement {
	several := f.Type == flow.FieldStringList || f.Type == flow.FieldIntList || f.Type == flow.FieldPersonList
	allowed := f.Allowed
	if f.Type == flow.FieldBool {
		allowed = []string{"true", "false"}
	}
	fits := len(allowed) > 0 && len(allowed) <= maxOptions && !slices.ContainsFunc(allowed, func(v string) bool { return len(v) > maxOption || v == "" })
	switch {
	case fits && several:
		return selectSeveral(allowed, f.Default)
	case fits:
		return selectOne(allowed, f.Default)
	case f.Type == flow.FieldInt:
		n := slack.NewNumberInputBlockElement(nil, elementID, false)
		if len(f.Default) == 1 {
			n.InitialValue = f.Default[0]
		}
		return n
	}
	most := maxInput
	if several {
		most = maxInputs
	}
	return textInput(strings.Join(f.Default, ", "), f.Name == flow.FieldReason, most)
}

func textInput(initial string, multiline bool, most int) slack.BlockElement {
	return &slack.PlainTextInputBlockElement{
		Type: slack.METPlainTextInput, ActionID: elementID, InitialValue: clip(initial, most), Multiline: multiline, MaxLength: most,
	}
}

func selectOne(allowed, initial []string) slack.BlockElement {
	var options []*slack.OptionBlockObject
	e := slack.NewOptionsSelectBlockElement(slack.OptTypeStatic, nil, elementID)
	for _, v := range allowed {
		o := option(v, v)
		options = append(options, o)
		if len(initial) == 1 && initial[0] == v {
			e.InitialOption = o
		}
	}
	e.Options = options
	return e
}

func selectSeveral(allowed, initial []string) slack.BlockElement {
	e := slack.NewOptionsMultiSelectBlockElement(slack.MultiOptTypeStatic, nil, elementID)
	for _, v := range allowed {
		o := option(v, v)
		e.Options = append(e.Options, o)
		if slices.Contains(initial, v) {
			e.InitialOptions = append(e.InitialOptions, o)
		}
	}
	return e
}

// inputs are what a block was filled with: one value of a text, all of a choice.
func inputs(v slack.View, block string) []string {
	if v.State == nil {
		return nil
	}
	in := v.State.Values[block][elementID]
	var out []string
	for _, o := range in.SelectedOptions {
		out = append(out, o.Value)
	}
	if in.SelectedOption.Value != "" {
		out = append(out, in.SelectedOption.Value)
	}
	if in.Value != "" {
		out = append(out, in.Value)
	}
	return out
}

func inputText(v slack.View, block string) string { return strings.Join(inputs(v, block), " ") }

// formValues are the values of a form. Lists that were typed are parted at commas and at
// ends of lines.
func formValues(o grant.Offer, v slack.View) flow.Values {
	values := flow.Values{}
	for _, f := range o.Fields {
		given := inputs(v, blockField+f.Name)
		if f.Type == flow.FieldStringList || f.Type == flow.FieldIntList || f.Type == flow.FieldPersonList {
			given = split(given)
		}
		if len(given) > 0 {
			values[f.Name] = given
		}
	}
	return values
}

func split(texts []string) []string {
	var out []string
	for _, text := range texts {
		for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == '\n' }) {
			if part = strings.TrimSpace(part); part != "" {
				out = append(out, part)
			}
		}
	}
	return out
}

// filled makes the request that a form asks for.
func (a *slackApp) filled(ctx context.Context, p identity.Principal, u slackUser, v slack.View) reply {
	offers, err := a.config.Access.Offers(ctx, p, channelSlack)
	if err != nil {
		return a.formError(nil, err)
	}
	offer, found := findOffer(offers, v.PrivateMetadata)
	if !found || v.PrivateMetadata == "" {
		return slack.NewUpdateViewSubmissionResponse(ptr(noteView("Not possible", "You may not ask this flow any more.")))
	}
	r, err := a.config.Access.Ask(ctx, actor(p, u), grant.Ask{
		Flow: offer.Flow.Name, Targets: inputs(v, blockTargets), Nodes: strings.Fields(strings.ReplaceAll(inputText(v, blockNodes), ",", " ")),
		Values: formValues(offer, v),
	})
	if err != nil {
		return a.formError(&offer, err)
	}
	a.wake(wakeOutbox)
	m := newMessage(r, nil, a.config.Now(), a.config.URL)
	return slack.NewUpdateViewSubmissionResponse(ptr(noteView("Asked", slackInline(m.ID+": "+m.Outcome)+". You will be told here what becomes of it.")))
}

// formError says what is wrong with a form, at the field that it is about.
func (a *slackApp) formError(o *grant.Offer, err error) reply {
	field := (*flow.FieldError)(nil)
	if o != nil && errors.As(err, &field) {
		for _, f := range o.Fields {
			if f.Name == field.Field {
				return viewErrors(blockField+f.Name, line(field.Problem, 150))
			}
		}
	}
	if o == nil {
		return slack.NewUpdateViewSubmissionResponse(ptr(noteView("Not possible", a.words(err))))
	}
	return viewErrors(blockField+flow.FieldReason, a.words(err))
}

// commentView asks for the comment of a decision.
func commentView(r grant.Request, s flow.Stage, approve bool) slack.ModalViewRequest {
	m := newMessage(r, nil, r.Frozen.Created, "")
	title, needed := "Deny", s.Comment != flow.CommentNever
	if approve {
		title, needed = "Approve", s.Comment == flow.CommentAlways
	}
	about, err := json.Marshal(pending{r.ID, r.Hash, approve})
	if err != nil {
		panic("notify: encoding strings: " + err.Error())
	}
	v := modal(viewComment, title, title,
		slack.NewSectionBlock(plain(m.Headline+" – "+m.Reason, maxSlackField), nil, nil),
		slack.NewInputBlock(blockComment, plain("Comment", maxLabel), nil, &slack.PlainTextInputBlockElement{
			Type: slack.METPlainTextInput, ActionID: elementID, Multiline: true, MaxLength: maxComment,
		}).WithOptional(!needed))
	v.PrivateMetadata = string(about)
	return v
}
