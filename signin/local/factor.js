// Security keys: a form with data-webauthn asks for one before it is sent, and sends what
// it answers.
"use strict";

const bytes = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
const text = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
const described = (list) => (list || []).map((c) => ({ ...c, id: bytes(c.id) }));

async function create(options) {
  const o = options.publicKey;
  const made = await navigator.credentials.create({
    publicKey: { ...o, challenge: bytes(o.challenge), user: { ...o.user, id: bytes(o.user.id) }, excludeCredentials: described(o.excludeCredentials) },
  });
  return answer(made, {
    attestationObject: text(made.response.attestationObject),
    clientDataJSON: text(made.response.clientDataJSON),
    transports: made.response.getTransports ? made.response.getTransports() : [],
  });
}

async function get(options) {
  const o = options.publicKey;
  const got = await navigator.credentials.get({
    publicKey: { ...o, challenge: bytes(o.challenge), allowCredentials: described(o.allowCredentials) },
  });
  return answer(got, {
    authenticatorData: text(got.response.authenticatorData),
    clientDataJSON: text(got.response.clientDataJSON),
    signature: text(got.response.signature),
    ...(got.response.userHandle ? { userHandle: text(got.response.userHandle) } : {}),
  });
}

function answer(credential, response) {
  return JSON.stringify({
    id: credential.id, rawId: text(credential.rawId), type: credential.type, response,
    authenticatorAttachment: credential.authenticatorAttachment || undefined,
    clientExtensionResults: credential.getClientExtensionResults(),
  });
}

for (const form of document.querySelectorAll("form[data-webauthn]")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const problem = form.querySelector(".problem");
    problem.hidden = true;
    try {
      const ask = form.dataset.webauthn === "create" ? create : get;
      form.elements.response.value = await ask(JSON.parse(form.dataset.options));
      form.submit();
    } catch (error) {
      problem.textContent = "The security key did not answer: " + error.message;
      problem.hidden = false;
    }
  });
}
