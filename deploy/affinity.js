// The beginning of a conversation, which all its turns share: turns with the same beginning go to the same server, whose
// prefix cache then has the rest. What cannot be read goes by the client's address.

function beginning(r) {
    try {
        const body = JSON.parse(r.requestText);
        const said = body.messages || body.input || body.prompt;
        const system = body.system || body.instructions || '';
        const first = Array.isArray(said) ? firstTurn(said) : String(said).slice(0, 2000);
        return body.model + '\n' + JSON.stringify(system) + '\n' + JSON.stringify(first);
    } catch (error) {
        return r.remoteAddress;
    }
}

// Everything up to the first question: what stands before it is the same for many conversations.
function firstTurn(messages) {
    const end = messages.findIndex((message) => message.role === 'user');
    return messages.slice(0, end + 1);
}

export default { beginning };
