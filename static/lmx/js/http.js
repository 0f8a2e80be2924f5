// Posting to the pages' own endpoints, with the token Django asks for.

export const csrfToken = () => JSON.parse(document.body.getAttribute("hx-headers"))["X-CSRFToken"];

export function post(url, fields) {
  return fetch(url, {
    method: "POST",
    headers: { "X-CSRFToken": csrfToken() },
    body: new URLSearchParams(fields),
  });
}

// Calls `tell` with a sentence when htmx was not answered, or with an error.
export function onRefusal(tell) {
  document.addEventListener("htmx:sendError", () => tell("The server cannot be reached; nothing was changed."));
  document.addEventListener("htmx:responseError", ({ detail }) =>
    tell(
      detail.xhr.status === 403
        ? "The server does not know this page any more. Reload it and try again."
        : `The server could not do that (it answered ${detail.xhr.status}); its log says why.`,
    ),
  );
}
