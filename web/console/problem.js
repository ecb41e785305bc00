// Reads the reason for a refusal from the server's answer (RFC 9457).

export async function problemOf(response) {
  let text = "";
  try {
    text = (await response.text()).trim();
    const problem = JSON.parse(text);
    if (problem.detail || problem.title) return problem.detail || problem.title;
  } catch {
    // Not JSON: a proxy may have answered instead.
  }
  const short = text && text.length < 200 && !text.startsWith("<") ? `: ${text}` : "";
  return `The server answered ${response.status} ${response.statusText}`.trim() + short;
}
